"""How fast it is: training and what it is compared with, saturation of a learner, memory."""
