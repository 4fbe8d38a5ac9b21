"""Datasets, decoded once to uint8 arrays, and normalised batches of them."""

from minicnn.data.augment import Augment as Augment
from minicnn.data.batches import Batches as Batches
from minicnn.data.batches import normalize as normalize
from minicnn.data.dataset import SAMPLE as SAMPLE
from minicnn.data.dataset import Dataset as Dataset
from minicnn.data.dataset import load as load
from minicnn.data.dataset import names as names
from minicnn.data.errors import DataError as DataError
from minicnn.data.images import Images as Images
from minicnn.data.images import read_image as read_image
from minicnn.data.summary import Summary as Summary
from minicnn.data.summary import UnusableImages as UnusableImages
