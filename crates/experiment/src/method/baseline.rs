use serde::{Deserialize, Serialize};

use super::MethodConfig;
use crate::reader::Reader;

/// Character n-grams weighted by TF-IDF, and logistic regression. The names are those of
/// scikit-learn's `TfidfVectorizer(analyzer="char")` and `LogisticRegression`, but `C` is `c`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TfidfMethod {
    /// Fewest and most characters of an n-gram.
    pub ngram_range: [usize; 2],
    /// Training reviews that an n-gram must stand in.
    pub min_df: usize,
    /// `1 + ln n` in the place of a count `n`.
    pub sublinear_tf: bool,
    /// Inverse strength of the penalty.
    pub c: f64,
    /// Norm of the objective's gradient at which the fit is done.
    pub tol: f64,
    /// Iterations in which it must be done.
    pub max_iter: usize,
}

impl MethodConfig {
    /// Whether it is a baseline ([`MethodKind::is_baseline`](super::MethodKind::is_baseline)).
    pub fn is_baseline(&self) -> bool {
        self.kind().is_baseline()
    }
}

pub(super) fn read_tfidf(method: &mut Reader<'_>) -> TfidfMethod {
    let range: Vec<usize> = method.get_if(
        "ngram_range",
        "fewest and most characters of an n-gram, from 1 to 6, as [1, 4]",
        |range: &Vec<usize>| matches!(range.as_slice(), [low, high] if (1..=*high).contains(low) && *high <= 6),
    );
    TfidfMethod {
        ngram_range: [0, 1].map(|end| range.get(end).copied().unwrap_or_default()),
        min_df: method.within("min_df", 1..),
        sublinear_tf: method.get("sublinear_tf"),
        c: method.get_if("c", "a number above 0", |c: &f64| *c > 0.0 && c.is_finite()),
        tol: method.get_if("tol", "a number above 0", |tol: &f64| *tol > 0.0 && tol.is_finite()),
        max_iter: method.within("max_iter", 1..),
    }
}
