"""What a model learns: the losses of training, chosen by ``train.objective.type``."""
