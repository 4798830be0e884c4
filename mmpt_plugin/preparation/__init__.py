"""From raw files to what the trainer reads. Each console command has a face here (argparse) and a module that works."""
