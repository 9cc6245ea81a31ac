use anyhow::{Result, ensure};
use nsmc_data::pretraining::{StarSummary, write_stars};
use nsmc_data::{Review, read_reviews, split};

use crate::args::Stars;
use crate::logging;
use crate::output::print;
use crate::pretrain::{corpus, nsmc};

/// Makes a data set of the crawl's stars and prints what a profile's `[data]` says of it.
pub(crate) fn run(args: &Stars, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    for (flag, share) in [
        ("--validation-fraction", args.validation_fraction),
        ("--test-fraction", args.test_fraction),
    ] {
        ensure!(
            (0.0..1.0).contains(&share),
            "`{flag}`: expected a share from 0 to below 1, found {share}"
        );
    }
    let corpus = corpus(&args.archive, &args.test, &args.corpus_sha256, &args.cache.folder())?;
    let train = read_reviews(&args.train, &nsmc())?;
    let validation = split(&train, None, args.validation_fraction)?.validation;
    let left_out: Vec<&Review> = validation.iter().map(|&index| &train[index]).collect();
    let summary = write_stars(&corpus, &left_out, args.test_fraction, &args.out)?;
    let StarSummary { left_out, train, test, train_sha256, test_sha256 } = summary;
    print(serde_json::json!({
        "left_out": left_out,
        "train": { "class_counts": train, "sha256": train_sha256 },
        "test": { "class_counts": test, "sha256": test_sha256 },
    }))
}
