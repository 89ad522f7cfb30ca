"""Generated corpora that MuJoCo simulates and draws: physics, manipulation."""
