use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use nsmc_data::{Format, Review, Split, check_class_counts, read_reviews, split, stand_in, subset};
use nsmc_experiment::{DataConfig, DataFile, Rows, sha256_file};

/// The reviews of a run and which of them it uses.
pub(crate) struct Corpus {
    /// Every review of the training file.
    pub(crate) train: Arc<Vec<Review>>,
    /// Which are trained on and which held out.
    pub(crate) split: Split,
    /// Every review of the test file.
    pub(crate) test: Arc<Vec<Review>>,
    /// Which are tested.
    pub(crate) tested: Vec<usize>,
    /// For each review of the test file, whether its document stands in the training file.
    pub(crate) in_training: Vec<bool>,
}

impl Corpus {
    /// Reads and checks the files of a configuration.
    pub(crate) fn read(config: &DataConfig) -> Result<Self> {
        let format = Format {
            id_column: Some(config.id_column.clone()).filter(|column| !column.is_empty()),
            text_column: config.text_column.clone(),
            label_column: config.label_column.clone(),
            labels: config.labels.clone(),
            delimiter: config.delimiter.as_bytes()[0],
            quoting: config.quoting,
        };
        let train = read_file("data.train", &config.train, &format, &config.dataset)?;
        let test = read_file("data.test", &config.test, &format, &config.dataset)?;
        let size = |rows| match rows {
            Rows::All => None,
            Rows::Exactly(rows) => Some(rows),
        };
        let split = split(&train, size(config.train_size), config.validation_fraction)
            .context("`data.train_size`")?;
        let tested = subset(&test, size(config.test_size)).context("`data.test_size`")?;
        let in_training = stand_in(&test, &train);
        tell_of_twins(&train, &split);
        Ok(Self { train: Arc::new(train), split, test: Arc::new(test), tested, in_training })
    }

    /// Says what a run can hardly be meant to have.
    pub(crate) fn warn(&self, labels: &[String]) {
        for (class, label) in labels.iter().enumerate() {
            if !self.split.train.iter().any(|&review| self.train[review].label == class) {
                tracing::warn!("no review that is trained on has the label \"{label}\"");
            }
            if !self.tested.iter().any(|&review| self.test[review].label == class) {
                let effect = match (labels.len(), class) {
                    // Of two classes the metrics are those of the second.
                    (2, 1) => ": precision, recall and F1 are of that class, and 0",
                    (2, _) => "",
                    _ => ": it counts as 0 in the means over the classes",
                };
                tracing::warn!("no review that is tested has the label \"{label}\"{effect}");
            }
        }
        if self.tested.iter().all(|&review| self.in_training[review]) {
            tracing::warn!("every text that is tested stands in the training file, too");
        }
    }
}

/// Says how many reviews the best epoch is chosen by although their text is trained on.
fn tell_of_twins(reviews: &[Review], split: &Split) {
    let text = |&review: &usize| reviews[review].document.as_str();
    let trained_on: HashSet<&str> = split.train.iter().map(text).collect();
    let twins = split.validation.iter().map(text).filter(|text| trained_on.contains(text)).count();
    if twins > 0 {
        tracing::info!(
            "{twins} of {} validation reviews have a text that is trained on, too",
            split.validation.len()
        );
    }
}

/// Refuses a file of data that is not there, or is another than the configuration means.
pub(crate) fn check_file(key: &str, file: &DataFile, dataset: &str) -> Result<()> {
    let path = &file.path;
    if !path.is_file() {
        bail!(
            "{}: no such file; `cargo xtask download` fetches the data set `{dataset}` if \
             datasets/manifest.toml names it, `--mirror DIR` takes it from a folder, and of a run that \
             is done `--set {key}.path=FILE` says where it lies by now",
            path.display()
        );
    }
    let found = sha256_file(path)?;
    ensure!(
        found == file.sha256,
        "{}: expected sha256 {}, found {found}: the file is not the one that the run was \
         configured for; `cargo xtask download` fetches a documented file anew",
        path.display(),
        file.sha256
    );
    Ok(())
}

fn read_file(key: &str, file: &DataFile, format: &Format, dataset: &str) -> Result<Vec<Review>> {
    check_file(key, file, dataset)?;
    let path = &file.path;
    let reviews = read_reviews(path, format)?;
    if !file.class_counts.is_empty() {
        check_class_counts(path, &reviews, &file.class_counts)?;
    }
    Ok(reviews)
}

/// The user's folder for what is kept between runs: tokens, corpora, kernels.
pub(crate) fn cache_folder() -> PathBuf {
    cache_folder_by(std::env::var_os("XDG_CACHE_HOME"), std::env::home_dir())
}

fn cache_folder_by(variable: Option<OsString>, home: Option<PathBuf>) -> PathBuf {
    // Of anything else, the variable's specification says to take no notice. It would be a folder within
    // the one that a program is started in.
    let cache = variable.map(PathBuf::from).filter(|folder| folder.is_absolute());
    let cache = cache.or_else(|| home.map(|home| home.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("nsmc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_lies_in_no_folder_that_a_program_happens_to_be_started_in() {
        let (absolute, home) = (std::env::temp_dir(), std::env::temp_dir().join("home"));
        let folder = |value: &str, home: Option<&PathBuf>| {
            cache_folder_by(Some(value.into()), home.cloned())
        };
        let named = absolute.to_str().unwrap();
        assert_eq!(folder(named, Some(&home)), absolute.join("nsmc"));
        for value in ["", "cache", "./cache"] {
            assert_eq!(folder(value, Some(&home)), home.join(".cache/nsmc"), "`{value}`");
            assert_eq!(folder(value, None), std::env::temp_dir().join("nsmc"), "`{value}`");
        }
        assert_eq!(cache_folder_by(None, Some(home.clone())), home.join(".cache/nsmc"));
    }
}
