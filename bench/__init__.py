"""The speeds that Berth promises, measured: each as a figure, and as a ratio to a baseline of the same run."""
