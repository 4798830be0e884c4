"""From files to batches. Only the modules that make batches know torch: pairs, pretraining_dataset, epoch_iterator."""
