"""From files to batches. Of these modules only those that make batches know torch: pairs, pretraining_dataset, epoch_iterator."""
