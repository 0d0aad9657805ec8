"""Shows a trained policy at play: as images, as a video or in a window."""
