"""What a figure must beat: the class prior, and how irregular the heart beats."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def predict_prior(targets: Floats, n: int) -> NDArray[np.float64]:
    """Give every window the shares of the classes in training.

    Parameters
    ----------
    targets : ndarray, shape (n_train, classes)
        Training labels, 0 or 1.
    n : int
        Windows to answer for.

    Returns
    -------
    ndarray of float64, shape (n, classes)
    """
    return np.tile(np.asarray(targets, dtype=np.float64).mean(axis=0), (n, 1))


def irregularity(rr_s: Floats) -> NDArray[np.float64]:
    """Measure how irregular each window of RR intervals is.

    Parameters
    ----------
    rr_s : ndarray, shape (n, intervals)
        RR intervals in seconds; NaN where there is none.

    Returns
    -------
    ndarray of float64, shape (n, 3)
        Logarithms of: standard deviation over mean, root mean square of successive differences over mean (Task Force
        1996, doi 10.1161/01.CIR.93.5.1043), and median absolute successive difference over median, which single
        ectopic or missed beats do not move. 0 intervals count as a regular rhythm.
    """
    rr = np.asarray(rr_s, dtype=np.float64)
    known = np.isfinite(rr)
    # Too few intervals tell nothing: such a window intervals has no irregularity.
    rr = np.where(known.sum(axis=1, keepdims=True) >= 3, rr, 1.0)
    steps = np.abs(np.diff(rr, axis=1))
    mean, median = np.nanmean(rr, axis=1), np.nanmedian(rr, axis=1)
    features = [
        np.nanstd(rr, axis=1) / mean,
        np.sqrt(np.nanmean(steps**2, axis=1)) / mean,
        np.nanmedian(steps, axis=1) / median,
    ]
    # The smallest irregularity that sampling at 128 to 360 Hz can tell from none is of this order.
    return np.log(np.stack(features, axis=1) + 1e-3)


def predict_irregularity(train_rr_s: Floats, targets: Floats, rr_s: Floats) -> NDArray[np.float64]:
    """Logistic regression of the last class on the irregularity of RR intervals.

    Parameters
    ----------
    train_rr_s, rr_s : ndarray, shape (n_train, intervals) and (n, intervals)
        RR intervals in seconds around each window.
    targets : ndarray, shape (n_train, 2)
        Training labels of two exclusive classes.

    Returns
    -------
    ndarray of float64, shape (n, 2)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(irregularity(train_rr_s), targets[:, 1] > 0)
    return model.predict_proba(irregularity(rr_s))
