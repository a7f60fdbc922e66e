from gss_train.common.command import run_command
from gss_train.common.devices import device_type, peak_memory_bytes, peak_resident_bytes, pick_device
from gss_train.common.errors import UserError
from gss_train.common.interruption import Interrupted, Interruption, ignore_interrupts
from gss_train.common.processes import ALONE, Processes, join_processes
from gss_train.common.progress import Meter, show_progress
from gss_train.common.sizes import Triple, times, to_triple
from gss_train.common.storage import final_name, open_replacing, remove, remove_stale_partials, sync_folder

__all__ = [
    "ALONE",
    "Interrupted",
    "Interruption",
    "Meter",
    "Processes",
    "Triple",
    "UserError",
    "device_type",
    "final_name",
    "ignore_interrupts",
    "join_processes",
    "open_replacing",
    "peak_memory_bytes",
    "peak_resident_bytes",
    "pick_device",
    "remove",
    "remove_stale_partials",
    "run_command",
    "show_progress",
    "sync_folder",
    "times",
    "to_triple",
]
