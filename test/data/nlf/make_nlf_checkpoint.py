#!/usr/bin/env python3
"""Write an NLF crop checkpoint in the official layout, with reproducible random weights.

    python make_nlf_checkpoint.py OUT_DIR --size s

The folder contains the files of an official release: the state dict of the crop model
(nlf_s_crop.pt or nlf_l_crop_0.3.2.pt), the joints and their canonical points (joint_info_866.pkl,
canonical_loc_symmetric_init_866.npy; here 74 joints instead of 866), the skeletons
(skeleton_types_huge8.pkl), the data of the positional encoding (canonical_eigval3.npy,
canonical_nodes3.npy) and the canonical joints of the body models (canonical_joints/).

The backbone has the same weights as the MeTRAbs checkpoint of ../golden/make_checkpoint.py.  The
localizer field is random, but scaled such that heatmaps are smooth and depend on the image and on
the canonical point.  Therefore, an error of half a pixel moves points by about 100 mm (median), and
rounding errors move them by less than 0.1 mm.

Needs only numpy, torch and PyYAML.
"""

import argparse
import importlib.util
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent

CHECKPOINT_NAMES = {'s': 'nlf_s_crop.pt', 'l': 'nlf_l_crop_0.3.2.pt'}

DEPTH = 8
LINK_CHANNELS = 512
HIDDEN = 384
POSITIONAL_CHANNELS = 1024

# Canonical positions in metres of the joints of a T-pose: x to the person's left, y up, z
# forwards.  The pelvis is the origin.  Only the left side; the right side is its mirror image.
CENTER_POINTS = {
    'pelv': (0.0, 0.0, 0.0),
    'bell': (0.0, 0.12, -0.02),
    'spin': (0.0, 0.25, -0.01),
    'thor': (0.0, 0.31, 0.01),
    'neck': (0.0, 0.51, -0.03),
    'head': (0.0, 0.6, 0.02),
    'nose': (0.0, 0.64, 0.12),
    'htop': (0.0, 0.8, 0.0),
}
LEFT_POINTS = {
    'hip': (0.07, -0.09, 0.0),
    'kne': (0.11, -0.47, 0.0),
    'ank': (0.1, -0.87, -0.04),
    'toe': (0.13, -0.92, 0.08),
    'cla': (0.08, 0.43, -0.01),
    'sho': (0.18, 0.45, -0.02),
    'elb': (0.44, 0.44, -0.05),
    'wri': (0.69, 0.45, -0.04),
    'han': (0.78, 0.44, -0.05),
    'eye': (0.03, 0.67, 0.1),
    'ear': (0.07, 0.65, 0.02),
    'thumb1': (0.73, 0.43, 0.0),
    'index1': (0.79, 0.45, -0.02),
    'middle1': (0.8, 0.45, -0.04),
    'ring1': (0.79, 0.45, -0.06),
    'pinky1': (0.77, 0.44, -0.08),
    'hand2': (0.83, 0.44, -0.05),
}

SMPL = (
    'pelv lhip rhip bell lkne rkne spin lank rank thor ltoe rtoe neck lcla rcla head lsho rsho '
    'lelb relb lwri rwri lhan rhan'
).split()
H36M = (
    'pelv rhip rkne rank lhip lkne lank spin neck head htop lsho lelb lwri rsho relb rwri'
).split()
COCO = (
    'neck nose pelv lsho lelb lwri lhip lkne lank rsho relb rwri rhip rkne rank leye lear reye '
    'rear'
).split()
# Joints whose first word contains the name of a finger, or begins with lhan or rhan and is longer,
# are joints of a hand: their canonical points are not trained.
OTHER = [side + name for name in 'thumb1 index1 middle1 ring1 pinky1'.split() for side in 'rl']
JOINT_NAMES = (
    [name + '_coco' for name in COCO]
    + [name + '_smpl' for name in SMPL]
    + ['lhand2_ghum', 'htop_3dhp', 'rhand2_ghum', 'head_3dhp']
    + [name + '_smplx' for name in OTHER]
    + [name + '_h36m' for name in H36M]
)
BONES = [
    *[('pelv', 'spin'), ('spin', 'neck'), ('neck', 'head'), ('head', 'htop'), ('head', 'nose')],
    *[('pelv', 'hip'), ('hip', 'kne'), ('kne', 'ank'), ('ank', 'toe'), ('neck', 'sho')],
    *[('sho', 'elb'), ('elb', 'wri'), ('wri', 'han'), ('nose', 'eye'), ('eye', 'ear')],
]

HEAD_SHAPES = {
    'canonical_lefts': None,
    'canonical_centers': None,
    'heatmap_head.weight_field.gps_net.learnable_fourier.linear.weight': (256, 3),
    'heatmap_head.weight_field.gps_net.mlp.0.weight': (2048, 512),
    'heatmap_head.weight_field.gps_net.mlp.0.bias': (2048,),
    'heatmap_head.weight_field.gps_net.mlp.2.weight': (POSITIONAL_CHANNELS, 2048),
    'heatmap_head.weight_field.gps_net.mlp.2.bias': (POSITIONAL_CHANNELS,),
    'heatmap_head.weight_field.pred_mlp.0.weight': (HIDDEN, POSITIONAL_CHANNELS),
    'heatmap_head.weight_field.pred_mlp.0.bias': (HIDDEN,),
    'heatmap_head.weight_field.pred_mlp.2.weight': ((LINK_CHANNELS + 1) * (DEPTH + 2), HIDDEN),
    'heatmap_head.weight_field.pred_mlp.2.bias': ((LINK_CHANNELS + 1) * (DEPTH + 2),),
    'heatmap_head.layer.0.weight': (LINK_CHANNELS, 1280, 1, 1),
    'heatmap_head.layer.1.weight': (LINK_CHANNELS,),
    'heatmap_head.layer.1.bias': (LINK_CHANNELS,),
    'heatmap_head.layer.1.running_mean': (LINK_CHANNELS,),
    'heatmap_head.layer.1.running_var': (LINK_CHANNELS,),
    'heatmap_head.layer.1.num_batches_tracked': (),
}

# Standard deviations of the random weights.
LOGIT_SCALE = 0.12
DEPTH_NOISE = 0.3
METRIC_NOISE = 0.05
UNCERTAINTY_SCALE = 0.055
UNCERTAINTY_BIAS = -1.9


def generator(seed, index):
    """Return the random numbers of one array, which do not depend on the other arrays."""
    return np.random.Generator(np.random.PCG64([seed, 20_000 + index]))


def canonical_point(name):
    """Return the untrained canonical position in metres of a joint, for example 'lhip_smpl'."""
    short, _, suffix = name.partition('_')
    # The conventions place joints of the same name a little differently.
    shift = 0.012 * np.array(
        {'smpl': (0, 0, 0), 'h36m': (0.5, 1, -1), 'coco': (0.3, -1, 1)}.get(suffix, (0, 0, 0))
    )
    if short in CENTER_POINTS:
        return np.array(CENTER_POINTS[short]) + shift * (0, 1, 1)
    mirror = np.array((1 if short[0] == 'l' else -1, 1, 1))
    return mirror * (np.array(LEFT_POINTS[short[1:]]) + shift)


def bone_indices(names):
    """Return pairs of indices of the joints that bones connect, in one convention."""
    index = {name: i for i, name in enumerate(names)}
    pairs = [
        (a if a in index else s + a, b if b in index else s + b) for (a, b) in BONES for s in 'lr'
    ]
    return sorted({(index[a], index[b]) for a, b in pairs if a in index and b in index})


def joint_edges():
    """Return the bones of all conventions as pairs of indices of `JOINT_NAMES`."""
    edges = []
    for suffix in ('coco', 'smpl', 'h36m'):
        full = [name for name in JOINT_NAMES if name.endswith('_' + suffix)]
        short = [name.partition('_')[0] for name in full]
        edges += [
            (JOINT_NAMES.index(full[i]), JOINT_NAMES.index(full[j]))
            for i, j in bone_indices(short)
        ]
    return edges


def skeleton_types():
    """Return the indices, names and edges of the skeletons, '' for all joints."""
    index = {name: i for i, name in enumerate(JOINT_NAMES)}

    def skeleton(full_names, names):
        indices = [index[name] for name in full_names]
        edges = [
            (indices.index(i), indices.index(j))
            for i, j in joint_edges()
            if i in indices and j in indices
        ]
        return {'indices': indices, 'names': list(names), 'edges': edges}

    renamed = {'bell': 'spi1', 'spin': 'spi2', 'thor': 'spi3'}
    head = ['htop_3dhp', 'leye_coco', 'lear_coco', 'nose_coco', 'reye_coco', 'rear_coco']
    skeletons = {
        'smpl_24': skeleton([n + '_smpl' for n in SMPL], [renamed.get(n, n) for n in SMPL]),
        'h36m_17': skeleton([n + '_h36m' for n in H36M], H36M),
        'coco_19': skeleton([n + '_coco' for n in COCO], COCO),
        'smpl+head_30': skeleton(
            [n + '_smpl' for n in SMPL] + head,
            [n + '_smpl' for n in SMPL] + [n.replace('_3dhp', '_mpi_inf_3dhp') for n in head],
        ),
        '': skeleton(JOINT_NAMES, JOINT_NAMES),
    }
    # As posepile writes them: all indices but the first one are scalars of NumPy.
    indices = skeletons['smpl+head_30']['indices']
    skeletons['smpl+head_30']['indices'] = [indices[0], *np.array(indices[1:])]
    return skeletons


def joint_info_pickle():
    """
    Return a pickle of a posepile.joint_info.JointInfo.

    That class has the attributes ids (an addict.Dict), names, mirror_mapping and
    stick_figure_edges; n_joints is a property.  The classes here only have the names and the state
    of the original ones.
    """

    class Dict(dict):
        def __getnewargs__(self):
            return tuple(self.items())

        def __getstate__(self):
            return self

    class JointInfo:
        pass

    modules = {}
    for written, module in ((JointInfo, 'posepile.joint_info'), (Dict, 'addict.addict')):
        written.__module__, written.__qualname__ = module, written.__name__
        modules[module.partition('.')[0]] = types.ModuleType(module.partition('.')[0])
        modules[module] = types.ModuleType(module)
        setattr(modules[module], written.__name__, written)
    replaced = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)
    try:
        info = JointInfo()
        info.ids = Dict(zip(JOINT_NAMES, range(len(JOINT_NAMES))))
        info.names = list(JOINT_NAMES)
        sides = {'l': 'r', 'r': 'l'}
        info.mirror_mapping = [info.ids[sides.get(n[0], n[0]) + n[1:]] for n in JOINT_NAMES]
        info.stick_figure_edges = joint_edges()
        return pickle.dumps(info, protocol=4)
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(replaced)


def head_state_dict(size, seed=0):
    """Return the random weights of the localizer field and of the layer before the heatmaps."""
    stats = statistics(size)
    n_left = sum(name[0] == 'l' for name in JOINT_NAMES)
    n_center = len(JOINT_NAMES) - 2 * n_left
    shapes = {**HEAD_SHAPES, 'canonical_lefts': (n_left, 3), 'canonical_centers': (n_center, 2)}
    channels = DEPTH + 2
    state = {}
    for i, (key, shape) in enumerate(shapes.items()):
        rng = generator(seed, i)
        normal = rng.standard_normal
        name = key.removeprefix('heatmap_head.').removeprefix('weight_field.')
        if name in ('canonical_lefts', 'canonical_centers'):
            value = 0.02 * normal(shape)
        elif name == 'gps_net.learnable_fourier.linear.weight':
            value = 12 * normal(shape)
        elif name == 'gps_net.mlp.0.weight':
            value = 1.5 * normal(shape)
        elif name == 'gps_net.mlp.2.weight':
            value = 1.5 / np.sqrt(shape[1]) * normal(shape)
        elif name == 'pred_mlp.0.weight':
            # The positional encoding is small: it is divided by the roots of the eigenvalues.
            value = 5 * normal(shape)
        elif name == 'pred_mlp.2.weight':
            # Channels of each point: uncertainty, metric x and y, volumes.  The last two are
            # similar: image points and metric points are consistent, and depths are positive.
            scale = LOGIT_SCALE / np.sqrt(HIDDEN)
            flat = scale * normal((LINK_CHANNELS + 1, 1, HIDDEN))
            value = flat + DEPTH_NOISE * scale * normal((LINK_CHANNELS + 1, channels, HIDDEN))
            value[:, 1] = flat[:, 0] + METRIC_NOISE * scale * normal(value[:, 1].shape)
            value[:, 0] = UNCERTAINTY_SCALE / np.sqrt(HIDDEN) * normal(value[:, 0].shape)
            value = value.reshape(shape)
        elif name == 'pred_mlp.2.bias':
            value = np.zeros((LINK_CHANNELS + 1, channels))
            value[-1] = 0.2 * normal(channels)
            value[-1, 0] = UNCERTAINTY_BIAS
            value = value.reshape(shape)
        elif name == 'layer.0.weight':
            value = np.sqrt(2 / shape[1]) * normal(shape)
        elif name == 'layer.1.num_batches_tracked':
            state[key] = torch.tensor(1)
            continue
        elif name == 'layer.1.running_mean':
            value = stats.get(key, np.zeros(shape))
        elif name == 'layer.1.running_var':
            value = stats.get(key, np.ones(shape))
        elif name == 'layer.1.weight':
            value = 1 + 0.1 * normal(shape)
        else:
            value = 0.1 * normal(shape)
        state[key] = torch.from_numpy(np.asarray(value, np.float32))
    return state


def state_dict(size, seed=0):
    """Return the weights of the crop model, with the names and in the order of the official one."""
    spec = importlib.util.spec_from_file_location(
        'make_metrabs_checkpoint', HERE.parent / 'golden' / 'make_checkpoint.py'
    )
    metrabs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(metrabs)
    config = {**metrabs.BASE_CONFIG, 'efficientnet_size': size}
    backbone = {
        key: value
        for key, value in metrabs.random_state_dict(config, seed).items()
        if key.startswith('backbone.')
    }
    for key, value in statistics(size).items():
        if key in backbone:
            backbone[key] = torch.from_numpy(value)
    head = head_state_dict(size, seed)
    canonical = {key: head.pop(key) for key in ('canonical_lefts', 'canonical_centers')}
    return {**canonical, **backbone, **head}


def statistics(size):
    """
    Return statistics of batch norms that were measured on images.

    The file contains the upper 16 bits of each float32.
    """
    path = HERE / f'batchnorm_{size}.npz'
    if not path.exists():
        return {}
    with np.load(path) as stored:
        return {key: (stored[key].astype(np.uint32) << 16).view(np.float32) for key in stored}


def eigenvalues(seed=0):
    """Return 1100 eigenvalues that grow as those of a Laplacian; the first one is almost zero."""
    k = np.arange(1100)
    values = 4 * k ** (2 / 3) * (1 + 0.02 * generator(seed, 100).standard_normal(len(k)))
    values[0] = 1e-9
    return np.sort(values)


def nodes(seed=0):
    """Return nodes [n, 3] in metres, of which only the smallest and largest coordinates matter."""
    points = np.array([canonical_point(name) for name in JOINT_NAMES])
    noise = generator(seed, 101).uniform(-0.1, 0.1, (4, *points.shape))
    return (points + noise).reshape(-1, 3)


def body_model_joints(seed=0):
    """Return the made-up joints [J, 3] in metres of SMPL and SMPL-X."""
    rng = generator(seed, 102)
    smpl = np.array([canonical_point(name + '_smpl') for name in SMPL])
    smpl += 0.01 * rng.standard_normal(smpl.shape)
    face = np.array([(0, 0.58, 0.05), (0.03, 0.67, 0.1), (-0.03, 0.67, 0.1)])
    fingers = 'index1 middle1 pinky1 ring1 thumb1'.split()
    left_hand = np.array(
        [np.array(LEFT_POINTS[f]) + (0.025 * i, -0.002 * i, 0) for f in fingers for i in range(3)]
    )
    smplx = np.concatenate([smpl[:22] + 0.005, face, left_hand, left_hand * (-1, 1, 1)])
    return {'smpl': smpl, 'smplx': smplx}


def write_checkpoint(out_dir, size, seed=0):
    """Create the folder of a checkpoint of size 's' or 'l'; return the path of the state dict."""
    out_dir = Path(out_dir)
    (out_dir / 'canonical_joints').mkdir(parents=True, exist_ok=True)
    np.save(out_dir / 'canonical_eigval3.npy', eigenvalues(seed))
    np.save(out_dir / 'canonical_nodes3.npy', nodes(seed))
    points = np.array([canonical_point(name) for name in JOINT_NAMES])
    np.save(out_dir / 'canonical_loc_symmetric_init_866.npy', points.astype(np.float32))
    for name, joints in body_model_joints(seed).items():
        np.save(out_dir / 'canonical_joints' / f'{name}.npy', joints)
    (out_dir / 'joint_info_866.pkl').write_bytes(joint_info_pickle())
    (out_dir / 'skeleton_types_huge8.pkl').write_bytes(pickle.dumps(skeleton_types(), protocol=4))
    path = out_dir / CHECKPOINT_NAMES[size]
    torch.save(state_dict(size, seed), path)
    return path


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('out_dir')
    parser.add_argument('--size', choices=sorted(CHECKPOINT_NAMES), default='s')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    print(f'wrote {write_checkpoint(args.out_dir, args.size, args.seed)}')
