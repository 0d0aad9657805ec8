"""A trained policy at play, drawn as pictures, as a video or in a window."""
