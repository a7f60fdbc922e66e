from gss_train.common.clock import CLOCK as CLOCK, Clock as Clock, duration as duration
from gss_train.common.command import run_command as run_command
from gss_train.common.devices import (
    device_type as device_type,
    peak_memory_bytes as peak_memory_bytes,
    peak_resident_bytes as peak_resident_bytes,
    pick_device as pick_device,
)
from gss_train.common.errors import UserError as UserError
from gss_train.common.interruption import (
    Interrupted as Interrupted,
    Interruption as Interruption,
    hold_interrupts as hold_interrupts,
    ignore_interrupts as ignore_interrupts,
)
from gss_train.common.processes import ALONE as ALONE, Processes as Processes, join_processes as join_processes
from gss_train.common.progress import Meter as Meter, show_progress as show_progress
from gss_train.common.room import (
    DiskRoom as DiskRoom,
    disk_room as disk_room,
    folder_bytes as folder_bytes,
    memory_room as memory_room,
)
from gss_train.common.sizes import (
    Triple as Triple,
    amount as amount,
    check_axes as check_axes,
    check_size as check_size,
    times as times,
    to_triple as to_triple,
)
from gss_train.common.storage import (
    final_name as final_name,
    open_replacing as open_replacing,
    remove as remove,
    remove_stale_partials as remove_stale_partials,
    sync_folder as sync_folder,
    writing as writing,
)
from gss_train.common.workers import default_workers as default_workers, end_with_parent as end_with_parent
