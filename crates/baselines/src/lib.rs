//! What a method must beat: classifiers without a neural network, from texts and classes to logits.
//!
//! - [`Majority`] answers the most frequent class.
//! - [`TfidfVectorizer`] counts character n-grams and weighs them; [`LogisticRegression`] is a linear
//!   model of the result. Both say what scikit-learn's classes of these names say (a test compares
//!   them).
//!
//! Nothing here is random, and no result depends on the number of threads.
//!
//! ```
//! use nsmc_baselines::{LogisticRegression, Regression, TfidfVectorizer};
//!
//! let texts = ["좋아요", "정말 좋아", "별로", "정말 별로예요"];
//! let options = TfidfVectorizer { ngram_range: (1, 2), min_df: 1, sublinear_tf: true };
//! let (tfidf, rows) = options.fit_transform(&texts)?;
//! let regression = Regression { c: 1.0, tol: 1e-4, max_iter: 100 };
//! let model = LogisticRegression::fit(&rows, &[1, 1, 0, 0], 2, &regression)?;
//! let logits = model.logits(&tfidf.transform(&["좋았어요"]));
//! assert!(logits[0][1] > logits[0][0]);
//! # Ok::<(), nsmc_baselines::BaselineError>(())
//! ```

mod error;
mod logistic;
mod majority;
mod sparse;
mod tfidf;

pub use error::BaselineError;
pub use logistic::{LogisticRegression, Regression};
pub use majority::Majority;
pub use sparse::SparseRows;
pub use tfidf::{Tfidf, TfidfVectorizer};
