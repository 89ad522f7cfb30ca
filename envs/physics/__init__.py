"""Violation-of-expectation videos: legal physics simulated, impossible videos recombined from it.

``tubelet voe generate`` writes a set, ``tubelet voe check`` proves that only physics tells possible
from impossible, ``tubelet voe render`` draws its stored scenes again. Nothing is loaded here.

The set on disk
===============

::

    ROOT/
      dataset.json           what the set is; written last, so a set without it is unfinished
      probe/                 quadruplets: 2 possible + 2 impossible videos (controls: 4 possible)
      train/                 possible videos only, free play without the probes' scenes
        videos/<video>.npy   uint8 [T, H, W, 3], C order, uncompressed (open with mmap_mode="r")
        videos.jsonl         {"video", "group", "frames"} per line, sorted by video: no labels
        labels.jsonl         one object per video, same order: everything below
        truth/<video>.npz    the states per frame
        scenes/<group>.xml   the MJCF that all videos of the group are drawn from
        parts/               only while a set is being written

``<video>`` and ``<group>`` are 16 hexadecimal digits that tell nothing; a group is a quadruplet
(``train/``: a single video). All videos of a set have the same T, H, W and rate, all files of
``videos/`` the same size and the same time stamp.

``dataset.json``: ``format`` ("tubelet-voe"), ``version`` (1), ``preset``, ``seed``, ``frames`` (T),
``size`` (H = W), ``fps``, ``videos`` (``{"probe": n, "train": n}``), ``cells`` (number of groups by
split, kind, principle and condition), ``config`` and ``software`` (versions, OpenGL back end).

``labels.jsonl``, per video:

=================  ================================================================================
``video, group``   ids. ``part``: "probe" or "train". ``split``: "val", "test", "ood" or "train"
``kind``           "probe", "null" (possible and impossible are copies: accuracy is exactly .5),
                   "control" (surprising but legal, all four possible), "pair" (reported apart:
                   the impossible videos are no recombination of the possible ones' frames) or
                   "freeform" (training)
``principle``      see ``PRINCIPLES``; for controls the event, for training "freeform"
``condition``      "visible" or "occluded"; ``variant``: the kind of scene inside it (a string)
``design``         "splice", "factorial" or "none"
``role``           "possible" or "impossible"; ``surprising`` (bool): the surprising half of a group
``recipe``         which recombination: "A", "B", "AB", "BA" (splice: A, then B), "11", "22", "12",
                   "21" (factorial: context, outcome); pairs "1", "2", "1x", "2x"; controls "plain
                   A", "plain B", "event A", "event B"; training "free"
``slot``           place of the video within its group, 0 to 3, shuffled
``prefix_twin``    the video of the other role that is byte-equal before ``t_event`` (null: none)
``suffix_twin``    the video of the other role that shares what follows: splice: byte-equal from
                   ``t_event`` to the next cut; factorial: the same outcome in the other context
``t_event``        first frame of the other track (splice: the first cut), or the first frame in
                   which the outcomes' states differ (factorial). The same in all four videos
``t_observable``   first frame in which a video and its prefix twin differ in any pixel
``cuts``           splice: ``[{"frame", "bridge": [lo, hi], "length": hi - lo}]``: tracks A and B
                   are byte-equal on frames lo <= t < hi, lo <= frame <= hi
``bridge``         L, the shortest bridge of the group's cuts (0: swapped in plain view; null: not
                   a splice)
``chance_window``  windows that span at most this many raw frames, (W - 1) * skip + 1 <= it, occur
                   equally often in possible and impossible videos, so any score by windows is at
                   chance by construction: L + 1 for splices, T for null quadruplets, else 0
``gap``            evidence gap: frames from the last informative one to the first diagnostic one
``hidden``         [[lo, hi), ...]: frames in which nothing of ``swapped`` shows in this video,
                   though it is there
``swapped``        names of the things that differ between the tracks (factorial: of the context)
``copy_friendly``  does the last informative frame, kept, decide both pairs? (null: not paired)
``axes``           visibility, objects (1-3), events (1-2), bridge (asked), distractors (0-2),
                   object_px (diameter in pixels), camera ("fixed", "moving"), and per principle
                   more (``delta_e``, …)
``things``         per thing: ``name``, ``kind`` ("object", "occluder", "support", "container"),
                   ``shape``, ``size`` (half extents, m), ``rgb`` (0 to 1), ``held_out`` (bool)
``camera``         ``path``, ``azimuth``, ``elevation`` (degrees), ``distance`` (m), ``fovy``
``checks``         measured when built: ``penetration`` (m), ``margin_px``, ``object_px``, …
``seed``           names of the random stream, ``attempt``: how many scenes were rejected before
=================  ================================================================================

``truth/<video>.npz``, N things in the order of ``things`` (world: metres, z up, x to the right,
y away from the camera; a thing that is absent is not drawn and its pose means nothing):

=============  ============================================================================
``pose``       float64 [T, N, 7]: position, then quaternion (w, x, y, z)
``present``    bool [T, N]
``visible``    int32 [T, N]: pixels in which the thing shows, from a segmentation rendering
``camera``     float64 [T, 7]: pose of the camera (looks along its -z, y is up)
``light``      float64 [T]: brightness of all lights, 1 = as in the scene
=============  ============================================================================
"""

PRINCIPLES = (
    "permanence",
    "continuity",
    "shape",
    "colour",
    "identity",
    "solidity",
    "support",
    "gravity",
    "inertia",
    "collision",
    "containment",
    "occlusion",
)
"""What the probes ask, in the order of the tables: object permanence, continuity of paths,
constancy of shape and of colour, identity (who is where), solidity, support, gravity, inertia,
collision, containment, and how much an occluder hides (occlusion)."""

CONDITIONS = ("visible", "occluded")
"""Does the decisive event happen in plain view, or behind something?"""
