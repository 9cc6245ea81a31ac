/// Why a baseline could not be fitted.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The training texts have no n-gram that stands in enough of them.
    #[error(
        "no n-gram of {low} to {high} characters stands in {min_df} or more of the {texts} training \
         texts; lower `min_df`"
    )]
    NoFeatures {
        /// Fewest characters of an n-gram.
        low: usize,
        /// Most characters.
        high: usize,
        /// Texts that an n-gram must stand in.
        min_df: usize,
        /// Training texts.
        texts: usize,
    },
    /// A class to be told from others has no text.
    #[error("expected training texts of two or more classes, found {found}")]
    OneClass {
        /// Classes that have a text.
        found: usize,
    },
    /// The optimiser did not come near enough to the optimum.
    #[error(
        "the logistic regression did not converge in {iterations} iterations, to a gradient of norm \
         {tol:e}; raise `max_iter` or `tol`"
    )]
    NotConverged {
        /// Iterations made.
        iterations: usize,
        /// The norm that was asked for.
        tol: f64,
    },
    /// The optimiser failed.
    #[error("the optimiser of the logistic regression")]
    Optimiser(#[source] anyhow::Error),
}
