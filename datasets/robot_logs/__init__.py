"""Recordings of robots in other people's formats, read as episodes and converted to our sets.

    log = open_log("lift/image.hdf5", camera="agentview_image")
    trajectories = convert_log(log, "runs/lift", image_size=64)     # a TrajectorySet

Formats: robomimic's and D4RL's HDF5, Minari's HDF5 layout, and folders of raw DROID recordings.
LeRobot v3 sets need no conversion. HDF5 needs h5py: ``pip install 'tubelet[robots]'``.
"""

from .convert import convert_log as convert_log
from .convert import open_log as open_log
from .log import LogEpisode as LogEpisode
from .log import RobotLog as RobotLog
