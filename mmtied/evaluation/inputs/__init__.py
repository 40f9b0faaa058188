"""What an evaluation reads: annotations, results files and dumps, run-length codes and images."""
