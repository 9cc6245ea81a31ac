use std::collections::BTreeMap;

use crate::MethodKind;
use crate::document::Node;
use crate::reader::{Reader, nearest};

/// One cell of a grid: a method, the recipe it follows, and what is particular to the cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// A file in `configs/methods/`, without its extension.
    pub method: String,
    /// A `[recipe.NAME]` of the profile; empty in a profile without recipes.
    pub recipe: String,
    /// One of the runs that a candidate is chosen by ([`Trials`]); no row of a table.
    pub trial: bool,
    pub(crate) set: Keys,
}

/// `[trials]`: candidates per method, run at one size and seed. A method's cells of the recipe take
/// the keys of its candidate with the highest validation accuracy.
#[derive(Clone, Debug)]
pub struct Trials {
    /// The recipe whose cells wait for the trials; empty in a profile without recipes.
    pub recipe: String,
    /// The seed of every trial, none of the grid's.
    pub seed: u64,
    set: Keys,
    candidates: BTreeMap<String, Vec<Keys>>,
}

/// Dotted keys or whole sections, each with its value, in the order they are laid over one another.
pub(crate) type Keys = Vec<(String, Node)>;

/// Keys by method: what stands under `[override.METHOD]`.
pub(crate) type Overrides = BTreeMap<String, Keys>;

/// `[recipe.NAME]`: what one way to train changes in the profile, sections like the profile's own
/// and overrides by method.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) sections: Keys,
    pub(crate) overrides: Overrides,
}

/// What a profile holds beside the sections of a configuration.
pub(crate) struct Grid {
    pub(crate) cells: Vec<Cell>,
    pub(crate) baselines: Vec<Cell>,
    pub(crate) seeds: Vec<u64>,
    pub(crate) paper_scale: Option<usize>,
    pub(crate) overrides: Overrides,
    pub(crate) recipes: BTreeMap<String, Recipe>,
    pub(crate) trials: Option<Trials>,
}

/// The recipe that the configuration of a trial has.
pub(crate) fn trial_recipe(recipe: &str) -> String {
    if recipe.is_empty() { "trial".into() } else { format!("{recipe}, trial") }
}

/// Whether a configuration's recipe is that of a trial; no profile's own is.
pub(crate) fn is_trial_recipe(recipe: &str) -> bool {
    recipe == "trial" || recipe.ends_with(", trial")
}

impl Cell {
    /// The cell of a method without recipe and particulars.
    pub fn of(method: impl Into<String>) -> Self {
        Self { method: method.into(), recipe: String::new(), trial: false, set: Vec::new() }
    }

    /// The cell with the particulars of a trial that was chosen; its own stand above them.
    #[must_use]
    pub fn taking(&self, trials: &Trials, candidate: usize) -> Self {
        let chosen = trials.candidates.get(&self.method).and_then(|keys| keys.get(candidate));
        let mut set = chosen.cloned().unwrap_or_default();
        set.extend(self.set.iter().cloned());
        Self { set, ..self.clone() }
    }
}

impl Trials {
    /// One cell per candidate of the method that `cell` waits for, in the order of the profile; none
    /// if it waits for none.
    pub fn before(&self, cell: &Cell) -> Vec<Cell> {
        if cell.recipe != self.recipe || cell.trial {
            return Vec::new();
        }
        let candidates = self.candidates.get(&cell.method).into_iter().flatten();
        candidates
            .map(|keys| Cell {
                method: cell.method.clone(),
                recipe: self.recipe.clone(),
                trial: true,
                set: self.set.iter().chain(keys).cloned().collect(),
            })
            .collect()
    }

    /// A candidate's keys, for a person.
    pub fn describe(&self, method: &str, candidate: usize) -> String {
        let keys = self.candidates.get(method).and_then(|keys| keys.get(candidate));
        let keys = keys.into_iter().flatten();
        keys.map(|(key, node)| format!("{key} = {}", node.text())).collect::<Vec<_>>().join(", ")
    }
}

/// Reads `[grid]`, `[override]` and `[recipe]`; `methods` are those that have a file.
pub(crate) fn read_grid(profile: &mut Reader<'_>, methods: &[String]) -> Option<Grid> {
    let overrides = read_overrides(profile, methods);
    let recipes = profile.table_if_any("recipe", |recipes| {
        let names = recipes.keys().into_iter();
        names
            .filter_map(|name| {
                if is_trial_recipe(&name) {
                    recipes.problem(&name, "expected another name: trials are called so");
                }
                let recipe = recipes.table(&name, |recipe| Recipe {
                    overrides: read_overrides(recipe, methods),
                    sections: recipe.entries(),
                })?;
                Some((name, recipe))
            })
            .collect()
    });
    let recipes: BTreeMap<String, Recipe> = recipes.unwrap_or_default();
    let trials = profile.table_if_any("trials", |table| read_trials(table, &recipes, methods));
    let trial_seed = trials.as_ref().map(|trials| trials.seed);
    let trial_seed = trial_seed.filter(|_| profile.is_sound("trials.seed"));
    let grid = profile.table("grid", |grid| {
        let crossed = read_recipes(grid, &recipes);
        let rows = grid.tables("cells", |cell| {
            let own = read_recipes(cell, &recipes);
            let follows = own.or_else(|| crossed.clone());
            if follows.is_none() && !recipes.is_empty() {
                cell.problem("recipes", "missing, here and in `grid`: the profile has recipes");
            }
            let method: String = cell.get("method");
            if cell.is_sound("method") && !methods.contains(&method) {
                cell.problem("method", unknown_method(&method, methods));
            }
            let set = cell.table_if_any("set", |set| set.entries()).unwrap_or_default();
            (follows.unwrap_or_default(), Cell { set, ..Cell::of(method) })
        });
        if rows.is_empty() && grid.is_sound("cells") {
            grid.problem("cells", "expected at least one cell");
        }
        let seeds = grid
            .get_if("seeds", "one or more integers from 0", |seeds: &Vec<u64>| !seeds.is_empty());
        if trial_seed.is_some_and(|seed| seeds.contains(&seed)) {
            grid.problem("seeds", "expected seeds other than that of the trials");
        }
        let paper_scale = grid
            .has("paper_scale")
            .then(|| grid.get_if("paper_scale", "an integer from 1", |&scale: &usize| scale > 0));
        let baselines = read_baselines(grid, &rows, methods);
        (cross(&rows), baselines, seeds, paper_scale)
    });
    let (cells, baselines, seeds, paper_scale) = grid?;
    if let Some(trials) = &trials {
        refuse_idle_candidates(profile, trials, &cells, methods);
    }
    Some(Grid { cells, baselines, seeds, paper_scale, overrides, recipes, trials })
}

/// What is wrong with a method that has no file in `configs/methods/`.
pub(crate) fn unknown_method<'a>(
    method: &str,
    known: impl IntoIterator<Item = &'a String>,
) -> String {
    let known: Vec<&String> = known.into_iter().collect();
    let likely = nearest(method, known.iter().copied());
    let hint = likely.map_or_else(String::new, |likely| format!("; did you mean `{likely}`?"));
    let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
    format!("expected one of the methods {}, found \"{method}\"{hint}", known.join(", "))
}

/// A cell per baseline that the grid names and choice of data that its cells make. They follow no
/// recipe: how a model is trained is nothing to them.
fn read_baselines(
    grid: &mut Reader<'_>,
    rows: &[(Vec<String>, Cell)],
    methods: &[String],
) -> Vec<Cell> {
    if !grid.has("baselines") {
        return Vec::new();
    }
    let is_there = |name: &&str| methods.iter().any(|method| method == name);
    let baselines = MethodKind::ALL.into_iter().filter(|kind| kind.is_baseline());
    let known: Vec<&str> = baselines.map(MethodKind::name).filter(is_there).collect();
    let expected = format!("baselines among {}", known.join(", "));
    let names: Vec<String> = grid.get_if("baselines", &expected, |names: &Vec<String>| {
        names.iter().all(|name| known.contains(&name.as_str()))
    });
    let is_of_data = |key: &str| key == "data" || key.starts_with("data.");
    let cells = rows.iter().flat_map(|(_, cell)| {
        let set = cell.set.iter().filter(|(key, _)| is_of_data(key)).cloned();
        let set: Keys = set.collect();
        names.iter().map(move |name| Cell { set: set.clone(), ..Cell::of(name) })
    });
    cells.collect()
}

fn read_trials(
    table: &mut Reader<'_>,
    recipes: &BTreeMap<String, Recipe>,
    methods: &[String],
) -> Trials {
    let recipe = match (table.has("recipe"), recipes.len()) {
        (false, 0) => String::new(),
        (false, 1) => recipes.keys().cloned().collect(),
        _ => {
            let known: Vec<&str> = recipes.keys().map(String::as_str).collect();
            let expected = format!("one of the recipes {}", known.join(", "));
            table.get_if("recipe", &expected, |name| recipes.contains_key(name))
        }
    };
    let seed = table.get("seed");
    let set = table.table_if_any("set", |set| set.entries()).unwrap_or_default();
    let candidates = table.table("candidates", |candidates| {
        let names = candidates.keys();
        let read: BTreeMap<String, Vec<Keys>> = names
            .into_iter()
            .map(|method| {
                if !methods.contains(&method) {
                    let known = methods.join(", ");
                    candidates.problem(&method, format!("expected one of the methods {known}"));
                }
                let keys = candidates.tables(&method, |candidate| candidate.entries());
                (method, keys)
            })
            .collect();
        let counts: Vec<String> =
            read.iter().map(|(method, keys)| format!("{method} {}", keys.len())).collect();
        let equal =
            read.values().all(|keys| Some(keys.len()) == read.values().next().map(Vec::len));
        if let (Some(method), false) = (read.keys().next_back(), equal) {
            let message = format!(
                "expected as many candidates for each method, so that none is tuned more than \
                 another; found {}",
                counts.join(", ")
            );
            candidates.problem(method, message);
        }
        read
    });
    Trials { recipe, seed, set, candidates: candidates.unwrap_or_default() }
}

/// Refuses candidates that no cell can take: those of a method that none of the trials' recipe uses, as
/// where its cells have a method file of one's own. No trial would be run for them, and the cells would
/// keep the rates that they have.
fn refuse_idle_candidates(
    profile: &mut Reader<'_>,
    trials: &Trials,
    cells: &[Cell],
    methods: &[String],
) {
    // What was read of these decides which method is used.
    let decide = ["grid.cells", "grid.recipes", "trials.recipe"];
    if !decide.into_iter().all(|key| profile.is_sound(key)) {
        return;
    }
    let mut used: Vec<&String> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.recipe == trials.recipe) {
        if !used.contains(&&cell.method) {
            used.push(&cell.method);
        }
    }
    // One that has no file is told as such.
    let is_idle = |method: &&String| !used.contains(method) && methods.contains(method);
    let idle: Vec<&String> = trials.candidates.keys().filter(is_idle).collect();
    if idle.is_empty() {
        return;
    }
    let of = match trials.recipe.as_str() {
        "" => String::new(),
        recipe => format!(" of the recipe `{recipe}`"),
    };
    let names: Vec<&str> = used.iter().map(|method| method.as_str()).collect();
    let expected = match names.as_slice() {
        [] => format!("expected a recipe that cells follow, for no cell is{of}"),
        names => format!("expected a method that a cell{of} uses: {}", names.join(", ")),
    };
    // A second look at a table that was read: it has the places of its keys.
    profile.table("trials", |table| {
        table.table("candidates", |candidates| {
            for method in idle {
                candidates.problem(
                    method,
                    format!("{expected}; no cell waits for trials of \"{method}\""),
                );
            }
            candidates.entries();
        });
        table.entries();
    });
}

/// The recipes that a grid or a cell names; each must be one of the profile's.
fn read_recipes(table: &mut Reader<'_>, recipes: &BTreeMap<String, Recipe>) -> Option<Vec<String>> {
    if !table.has("recipes") {
        return None;
    }
    let names: Vec<String> =
        table.get_if("recipes", "one or more recipes", |names: &Vec<String>| !names.is_empty());
    let known: Vec<&str> = recipes.keys().map(String::as_str).collect();
    for name in names.iter().filter(|name| !recipes.contains_key(*name)) {
        let message = match known.as_slice() {
            [] => format!("the profile has no [recipe.NAME], found \"{name}\""),
            known => format!("expected one or more of {}, found \"{name}\"", known.join(", ")),
        };
        table.problem("recipes", message);
    }
    Some(names)
}

/// A cell per row and recipe: a recipe's cells stand together, recipes in the order they are first
/// named.
fn cross(rows: &[(Vec<String>, Cell)]) -> Vec<Cell> {
    if rows.iter().all(|(recipes, _)| recipes.is_empty()) {
        return rows.iter().map(|(_, cell)| cell.clone()).collect();
    }
    let mut order: Vec<&String> = Vec::new();
    for recipe in rows.iter().flat_map(|(recipes, _)| recipes) {
        if !order.contains(&recipe) {
            order.push(recipe);
        }
    }
    let of = |recipe: &String| {
        let recipe = recipe.clone();
        let follow = rows.iter().filter(move |(recipes, _)| recipes.contains(&recipe));
        follow.map(|(_, cell)| cell)
    };
    order
        .into_iter()
        .flat_map(|recipe| of(recipe).map(|cell| Cell { recipe: recipe.clone(), ..cell.clone() }))
        .collect()
}

fn read_overrides(table: &mut Reader<'_>, methods: &[String]) -> Overrides {
    let overrides = table.table_if_any("override", |overrides| {
        let names = overrides.keys().into_iter();
        names
            .filter_map(|method| {
                if !methods.contains(&method) {
                    let known = methods.join(", ");
                    overrides.problem(&method, format!("expected one of the methods {known}"));
                }
                let keys = overrides.table(&method, |keys| keys.entries())?;
                Some((method, keys))
            })
            .collect()
    });
    overrides.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Document;

    /// What is wrong with a grid whose methods `lora`, `lora4` and `vanilla` have files.
    fn mistakes(text: &str) -> String {
        let document = Document::parse(text, Path::new("toy.toml")).expect("it is TOML");
        let mut reader = Reader::new(&document.root);
        let methods = ["lora", "lora4", "vanilla"].map(str::to_owned);
        let grid = read_grid(&mut reader, &methods);
        reader.finish(grid).err().map(|error| error.to_string()).unwrap_or_default()
    }

    const TRIALS: &str = r#"
[trials]
seed = 9
[trials.candidates]
vanilla = [{ "training.learning_rate" = 2e-5 }]
lora = [{ "training.learning_rate" = 1e-3 }]
"#;

    #[test]
    fn candidates_of_a_method_that_no_cell_of_the_recipe_uses_are_told_by_their_key() {
        let grid = |cells: &str| format!("[grid]\nseeds = [1]\ncells = [{cells}]\n{TRIALS}");
        let both = "{ method = \"vanilla\" }, { method = \"lora\" }, { method = \"lora\" }";
        assert_eq!(mistakes(&grid(both)), "");
        assert_eq!(
            mistakes(&grid(&both.replace("lora", "lora4"))),
            "toy.toml:9: `trials.candidates.lora`: expected a method that a cell uses: vanilla, lora4; \
             no cell waits for trials of \"lora\""
        );
        // A cell of the method in another recipe waits for none.
        let other = "{ method = \"vanilla\", recipes = [\"tuned\"] }, \
                     { method = \"lora\", recipes = [\"plain\"] }";
        let recipes = |trials: &str| {
            let grid = grid(other).replace("seed = 9", &format!("recipe = \"{trials}\"\nseed = 9"));
            mistakes(&format!("[recipe.plain]\n[recipe.tuned]\n[recipe.idle]\n{grid}"))
        };
        assert_eq!(
            recipes("tuned"),
            "toy.toml:13: `trials.candidates.lora`: expected a method that a cell of the recipe `tuned` \
             uses: vanilla; no cell waits for trials of \"lora\""
        );
        let idle = recipes("idle");
        assert!(idle.starts_with("2 mistakes\n"), "{idle}");
        let expected = "`trials.candidates.vanilla`: expected a recipe that cells follow, for no cell is \
                        of the recipe `idle`; no cell waits";
        assert!(idle.contains(expected), "{idle}");
    }

    #[test]
    fn which_method_is_used_is_not_asked_of_what_could_not_be_read() {
        for (cells, recipe, expected) in [
            ("{ method = \"lorra\" }", "", "`grid.cells[0].method`: expected one of the methods"),
            ("{ method = \"vanilla\" }", "recipe = \"tuned\"", "`trials.recipe`: expected one of"),
        ] {
            let trials = TRIALS.replace("seed = 9", &format!("seed = 9\n{recipe}"));
            let found = mistakes(&format!("[grid]\nseeds = [1]\ncells = [{cells}]\n{trials}"));
            assert!(found.contains(expected) && found.lines().count() == 1, "{found}");
        }
        let trials = TRIALS.replace("lora", "lorra");
        let cells = "{ method = \"vanilla\" }";
        let found = mistakes(&format!("[grid]\nseeds = [1]\ncells = [{cells}]\n{trials}"));
        let expected =
            "`trials.candidates.lorra`: expected one of the methods lora, lora4, vanilla";
        assert!(found.ends_with(expected) && found.lines().count() == 1, "{found}");
    }
}
