use anyhow::{Result, ensure};
use nsmc_eval::{EvaluatedRun, Table, paper_table, results_table};

use crate::args::Tables;
use crate::print;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace, args: &Tables) -> Result<()> {
    let folder = workspace.folder(&args.runs);
    let runs = EvaluatedRun::read_all(&folder)?;
    ensure!(!runs.is_empty(), "{}: no run has left a record here", folder.display());
    let show = |table: &Table| {
        print(&if args.markdown { table.markdown() } else { table.terminal(None) });
    };
    show(&results_table(&runs));
    if let Some(table) = paper_table(&runs) {
        print("\nBeside the paper, averaged over batches as it did:\n");
        show(&table);
    }
    Ok(())
}
