"""Kinds of models, by scikit-learn's names: which can be honoured on the node, which can't.

What can't is refused by name, with the reason and the nearest that can.
"""

from outpost.errors import OutpostError
from outpost.tables import meant

TREES = ("RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier")
REGRESSIONS = ("RandomForestRegressor", "ExtraTreesRegressor", "DecisionTreeRegressor")
MIXTURES = ("GaussianMixture", "BayesianGaussianMixture")
DETECTORS = ("EllipticEnvelope", *MIXTURES)
OTHERS = ("GaussianNB", "KNeighborsClassifier", "MLPClassifier")
KINDS = (*TREES, *REGRESSIONS, *OTHERS, *DETECTORS)

SCALERS = ("StandardScaler", "MinMaxScaler", "RobustScaler")
SELECTORS = ("SelectKBest", "SelectPercentile", "VarianceThreshold", "SelectFromModel", "RFE",
             "RFECV", "SequentialFeatureSelector", "SelectFpr", "SelectFdr", "SelectFwe",
             "GenericUnivariateSelect")
STEPS = (*SCALERS, *SELECTORS)

_FORESTS = "RandomForestClassifier or ExtraTreesClassifier"
_LINEAR = "MLPClassifier with hidden_layer_sizes = [], which is a logistic regression in int8"
_KERNEL = "its kernel is an exponential for each support vector"
_BOOSTED = "its trees add up floats and end in an exponential"
_NUMBER = "a node's network decides between classes"

# kind: why not, and what to take instead
REFUSED = {
    "SVC": (_KERNEL, f"{_FORESTS}, or MLPClassifier"),
    "NuSVC": (_KERNEL, f"{_FORESTS}, or MLPClassifier"),
    "SVR": (_KERNEL, "RandomForestRegressor"),
    "OneClassSVM": (_KERNEL, "EllipticEnvelope or GaussianMixture"),
    "GaussianProcessClassifier": (_KERNEL, f"{_FORESTS}, or KNeighborsClassifier"),
    "LinearSVC": ("emlearn converts no linear models", _LINEAR),
    "LogisticRegression": ("emlearn converts no linear models", _LINEAR),
    "RidgeClassifier": ("emlearn converts no linear models", _LINEAR),
    "SGDClassifier": ("emlearn converts no linear models", _LINEAR),
    "Perceptron": ("emlearn converts no linear models", _LINEAR),
    "LinearDiscriminantAnalysis": ("emlearn converts no linear models", _LINEAR),
    "LinearRegression": ("emlearn converts no linear models", "RandomForestRegressor"),
    "Ridge": ("emlearn converts no linear models", "RandomForestRegressor"),
    "QuadraticDiscriminantAnalysis": ("emlearn doesn't convert it", "GaussianNB"),
    "GradientBoostingClassifier": (_BOOSTED, _FORESTS),
    "HistGradientBoostingClassifier": (_BOOSTED, _FORESTS),
    "XGBClassifier": (_BOOSTED, _FORESTS),
    "LGBMClassifier": (_BOOSTED, _FORESTS),
    "CatBoostClassifier": (_BOOSTED, _FORESTS),
    "GradientBoostingRegressor": (_BOOSTED, "RandomForestRegressor"),
    "HistGradientBoostingRegressor": (_BOOSTED, "RandomForestRegressor"),
    "AdaBoostClassifier": ("its trees have unequal votes in floats",
                           f"{_FORESTS} with [forest] vote = \"soft\""),
    "BaggingClassifier": ("its members may be anything", "RandomForestClassifier"),
    "VotingClassifier": ("its members may be anything", "the best of its members"),
    "StackingClassifier": ("its members may be anything", "the best of its members"),
    "IsolationForest": ("its score is an average of depths under an exponential",
                        "EllipticEnvelope or GaussianMixture"),
    "LocalOutlierFactor": ("it needs the distances between all training windows",
                           "EllipticEnvelope or GaussianMixture"),
    "KMeans": ("it has no classes", "GaussianMixture"),
    "MultinomialNB": ("emlearn converts only Gaussian naive Bayes", "GaussianNB"),
    "BernoulliNB": ("emlearn converts only Gaussian naive Bayes", "GaussianNB"),
    "CategoricalNB": ("emlearn converts only Gaussian naive Bayes", "GaussianNB"),
    "RadiusNeighborsClassifier": ("there may be no neighbour at all", "KNeighborsClassifier"),
    "NearestCentroid": ("emlearn doesn't convert it", "GaussianNB"),
    "KNeighborsRegressor": ("emlearn converts only the classifier", "RandomForestRegressor"),
    "MLPRegressor": (_NUMBER, "RandomForestRegressor"),
    "Sequential": ("Keras is not needed here: small dense networks are trained by scikit-learn",
                   "MLPClassifier"),
    # steps of a pipeline
    "PCA": ("it mixes all features in floats", "SelectKBest, or fewer [features]"),
    "KernelPCA": ("it mixes all features in floats", "SelectKBest, or fewer [features]"),
    "TruncatedSVD": ("it mixes all features in floats", "SelectKBest, or fewer [features]"),
    "PolynomialFeatures": ("products of features are floats", "a forest, which needs none"),
    "Normalizer": ("it divides each window by its own length", "StandardScaler"),
    "MaxAbsScaler": ("emlearn and we know three scalers", "StandardScaler or MinMaxScaler"),
    "QuantileTransformer": ("its curve is a table of floats", "RobustScaler"),
    "PowerTransformer": ("its curve is a power in floats", "RobustScaler"),
    "KBinsDiscretizer": ("forests do that by themselves", "a forest without it"),
    "OneHotEncoder": ("features are whole numbers already", "a forest without it"),
    "SimpleImputer": ("no feature of a window is ever missing", "a pipeline without it"),
    "FunctionTransformer": ("what it calls can't be seen",
                            "a statistic of firmware/native/features.c"),
    "ColumnTransformer": ("it may treat each feature otherwise",
                          "one of " + ", ".join(SCALERS) + " for all"),
}


class KindError(OutpostError):
    """A kind of model, or a step before it, that can't be honoured on the node."""


def check(name: str) -> str:
    """Return `name` if models of this kind can be converted, else raise KindError."""
    if name in KINDS:
        return name
    raise refusal(name, KINDS)


def refusal(name: str, allowed: tuple[str, ...]) -> KindError:
    """Return the error that says why `name` can't be honoured, and what is nearest to it."""
    if name in REFUSED:
        why, instead = REFUSED[name]
        return KindError(f"{name} can't be converted: {why}; take {instead}")
    return KindError(f"{name} can't be converted{meant(name, allowed)}; allowed: "
                     f"{', '.join(allowed)}")
