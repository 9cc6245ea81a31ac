use anyhow::Result;
use nsmc_experiment::Profile;

use crate::args::Options;
use crate::train::Run;
use crate::workspace::Workspace;
use crate::{download, say};

/// The profile that runs without network: its model is part of the repository.
const PROFILE: &str = "mini";
/// The data set that is part of the repository.
const SAMPLE: &str = "sample";
/// What is set with it. Its 2,000 reviews are a tenth of the profile's: they take more epochs, and none
/// of them is left out to choose the best epoch by.
const SETTINGS: [&str; 6] = [
    "data.dataset=sample",
    "data.train_size=\"all\"",
    "data.test_size=\"all\"",
    "data.validation_fraction=0",
    "training.selection=\"last\"",
    "training.num_train_epochs=6",
];

/// The options with which a profile can run here: where its data set can be neither found nor
/// fetched, the offline profile takes the sample of the repository, and says so.
pub(crate) fn with_data(
    workspace: &Workspace,
    profile: &Profile,
    options: &Options,
) -> Result<Options> {
    // A key of the section, or all of it as a table.
    let of_data = |assignment: &String| {
        let section = assignment.split(['.', '=']).next();
        section.is_some_and(|section| section.trim().trim_matches(['"', '\'']) == "data")
    };
    let chosen = options.set.iter().any(of_data);
    if profile.name != PROFILE || chosen {
        return Ok(options.clone());
    }
    // Without what is set: none of it is of the data, and a method's keys suit that method alone.
    let plain = Options { set: Vec::new(), ..options.clone() };
    let run = Run::resolve(workspace, profile, &profile.cells[0], profile.seeds[0], &plain)?;
    let name = &run.config.data.dataset;
    let datasets = workspace.datasets()?;
    let Some(entry) = datasets.datasets.get(name) else { return Ok(options.clone()) };
    let Err(error) = download::dataset(workspace, name, entry, &options.source) else {
        return Ok(options.clone());
    };
    // Whoever names a folder means what lies there.
    if options.source.mirror().is_some() {
        return Err(error);
    }
    say(&format!(
        "`{name}` is not here and cannot be fetched ({error:#}); taking datasets/{SAMPLE}, 2,400 reviews \
         written for this project. These are not the paper's numbers: those need {name} \
         (`cargo xtask download`, `--mirror DIR`) and `--profile paper`.",
    ));
    let mut options = options.clone();
    options.set.splice(0..0, SETTINGS.map(str::to_owned));
    Ok(options)
}
