"""What keeps a run safe: started as it was meant, alone in its folder, stopped with a checkpoint, resumed from a whole one."""
