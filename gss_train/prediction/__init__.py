"""From raw scans and trained networks to label maps on the scans' own grid."""
