"""Every limit of the diagnosis in one place, with its reason.

"Healthy" and "collapsed" without more are embeddings from the training runs listed in docs/collapse.md.
"""

# What decides a verdict.
# One point: the share of the mean squared length that varies. 1e-5 is a spread of 0.3 % of the offset, between an
# offset of 100 standard deviations (1e-4), which subtracting the mean undoes, and a point with noise of 0.1 % (1e-6).
POINT_SHARE = 1e-5
ROUNDING = 1e-9  # of the length of the mean: vectors nearer to it are equal up to float64 rounding
SHRUNK = 0.1  # of the std that the loss asks for: healthy embeddings have 0.29 and more, collapsed ones 0.056 and less
ONE_POINT_PAIRS = 0.8  # of all pairs are equal when 90 % of the vectors are one point
ONE_WAY = -0.04  # uniformity of directions, where they are all that counts: a cosine of 0.99 between most vectors
FEW_DIRECTIONS = 5  # hold 95 % of the variance: Z needs 8 and more where healthy, 1 to 3 without covariance term
FEW_SHARE = 0.125  # of the possible rank, for embeddings so narrow that five directions are many
ALIVE_SHARE = 0.5  # of the possible rank, or of the dimensions, below which most of the embedding is empty
FEW_CLUSTERS = 0.25  # of the possible rank: more tight clusters than this may be repeated samples
CORRELATED = 0.5  # mean absolute correlation that makes repeated dimensions the cause; healthy embeddings: 0.4 at most

# What counts as what.
SMALL_RANK = 5  # possible rank below which chance makes floors: in 2 of 60 Gaussian sets of five vectors
DEAD_STD = 1e-3  # of the root mean square std: such a dimension adds a millionth of an average one to any distance
COPY_CORRELATION = 0.999  # two dimensions of independent content reach it only when very few vectors move them
COPY_SUPPORT = 8  # vectors that must move a dimension before its correlations mean anything
EMPTY = 1e-10  # of the largest variance: above float32 rounding, below the smallest of a square Gaussian matrix
FLOOR_DROP = 10.0  # from one eigenvalue to the next; healthy embeddings reach 4.3, power laws 2^alpha
FLOOR_FLATNESS = 12.0  # largest over median eigenvalue behind the drop: twice the 6 of noise in a square matrix
CLIFF_DROP = 50.0  # a drop after which it does not matter whether the rest is flat
FLOOR_SHARE = 0.04  # of the variance: a floor that holds more is part of the picture and not noise below it
CLUSTER_RADIUS = 0.2  # of the root mean square distance of two vectors: links the members of one cluster
CLUSTER_SHARE = 0.95  # of the variance that lies between tight clusters, and of the vectors that are in one
CLUSTER_SIZE = 8  # mean number of sampled vectors in a cluster; below, near neighbours are no cluster
SAME_RADIUS = 1e-3  # of the root mean square distance of two vectors: nearer ones are the same point

# What is worth a remark.
MANY = 32  # directions or vectors from which a share of them means something
NARROW = 0.1  # of the possible rank holds 95 % of the variance
ONE_DIRECTION = 0.5  # of the variance along a single direction
FAR_OFFSET = 0.1  # of the mean squared length varies: below, cosine similarities show the mean and little else
SMALL_STD = 0.1  # mean std at which an unknown scale matters
OUTLYING = 0.5  # of the variance, in the farthest hundredth of the vectors
UNRELATED = 0.1  # share of the variance that two views have in common: below, nothing worth training on
IDENTICAL = 1e-9  # share of the variance in which two views differ: below, they are the same numbers
SILENT = 0.05  # of the variance of Z, in its prediction: working predictors have 0.27 and more, silent ones 0.008

# What is worth a warning in training.
SHRINKING = 0.25  # of the std at the first measurement: healthy runs stay above 0.85 of it, collapsing ones pass 0.12
REPEATING = 0.5  # mean absolute correlation: healthy runs stay below 0.4, without covariance term it passes 0.8
RANK_LOST = 0.1  # of the highest effective rank of the run: healthy runs keep 0.3, collapsing ones pass 0.07
