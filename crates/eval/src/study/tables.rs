use nsmc_experiment::{MethodKind, Rows};

use super::{Cell, Contrast, Metric, Study, Verdict};
use crate::compare::p_value;
use crate::results::{self, setting_words};
use crate::statistics::{Interval, SeedSummary};
use crate::{BilingualTable, Words, method_words, minutes_and_seconds, size_words, with_thousands};

/// A table of a study, with what must be known to read it.
#[derive(Clone, Debug)]
pub struct StudyTable {
    /// A short name, for labels.
    pub name: String,
    /// What it shows.
    pub title: Words,
    /// How to read it.
    pub note: Words,
    /// The table.
    pub table: BilingualTable,
}

const NONE: &str = "–";

impl Study {
    /// Every table, in the order of reading.
    pub fn tables(&self) -> Vec<StudyTable> {
        let mut tables = self.quality_tables();
        tables.extend(self.difference_table());
        tables.extend(self.recipe_table());
        tables.push(self.cost_table());
        tables.extend(self.trouble_table());
        tables
    }

    /// Accuracy and its like, a table per setting and training size, beside the paper's.
    pub fn quality_tables(&self) -> Vec<StudyTable> {
        let mut groups: Vec<(&str, Rows)> = Vec::new();
        for cell in &self.cells {
            let group = (cell.key.setting.as_str(), cell.key.train_size);
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        let table = |(setting, size)| self.quality_table(setting, size);
        groups.into_iter().map(table).collect()
    }

    fn quality_table(&self, setting: &str, size: Rows) -> StudyTable {
        let of_group = |cell: &&Cell| cell.key.setting == setting && cell.key.train_size == size;
        let cells: Vec<&Cell> = self.cells.iter().filter(of_group).collect();
        let paper = cells.iter().find_map(|cell| cell.paper(self.paper_scale));
        let mut header: Vec<Words> = vec![
            recipe_title(),
            Words::new("method", "방법"),
            Words::new("runs", "실험 수"),
            accuracy(),
            Words::new("95 % interval", "95% 신뢰구간"),
        ];
        let paper_title = |Words { en, ko }: Words| {
            let size = with_thousands(paper?.train_size);
            Some(match self.paper_scale {
                Some(_) => Words::new(
                    format!("paper\n(mBERT,\n{size})\n{en}"),
                    format!("논문\n(mBERT,\n{size}건)\n{ko}"),
                ),
                None => Words::new(format!("paper\n{en}"), format!("논문\n{ko}")),
            })
        };
        header.extend(paper_title(accuracy()));
        let seen = |cell: &&Cell| {
            let in_training = &cell.answers().first()?.test.in_training;
            Some(in_training.iter().filter(|seen| **seen).count())
        };
        let seen = cells.iter().find_map(seen).unwrap_or_default();
        if seen > 0 {
            header.push(Words::new("accuracy,\nnew texts", "정확도,\n중복 제외"));
        }
        let others = [precision(), recall(), "F1".into()];
        header.extend(others.clone());
        // The paper's are means over batches, too.
        for other in others {
            let Words { en, ko } = &other;
            header.push(Words::new(format!("{en},\nbatches"), format!("{ko},\n배치 평균")));
            header.extend(paper_title(other));
        }
        let mut table = BilingualTable::new(header, 2);
        for cell in cells {
            let mut row = vec![
                recipe(cell).into(),
                method_words(&cell.key.label),
                runs(cell),
                cell.summary(Metric::Accuracy)
                    .map_or_else(|| missing(cell), |summary| spread(summary).into()),
                cell.accuracy_interval().map_or_else(|| NONE.into(), interval),
            ];
            let figures = cell.paper(self.paper_scale);
            let figures = figures.map(|row| [row.accuracy, row.precision, row.recall, row.f1]);
            let of_paper = |index: usize| {
                paper.is_some().then(|| digits(figures.map(|figures| figures[index]), 3))
            };
            row.extend(of_paper(0));
            if seen > 0 {
                row.push(digits(cell.mean(Metric::UnseenAccuracy), 4));
            }
            for metric in [Metric::Precision, Metric::Recall, Metric::F1] {
                row.push(digits(cell.mean(metric), 4));
            }
            let batches =
                [Metric::BatchMeanPrecision, Metric::BatchMeanRecall, Metric::BatchMeanF1];
            for (index, metric) in batches.into_iter().enumerate() {
                row.push(digits(cell.mean(metric), 3));
                row.extend(of_paper(index + 1));
            }
            table.push(row);
        }
        let note = self.about_quality(of_group, seen, paper.is_some());
        let words = self.setting(setting);
        let title = match size {
            Rows::All => Words::new(
                format!("All reviews to train on. {}", words.en),
                format!("학습 데이터 전체. {}", words.ko),
            ),
            Rows::Exactly(size) => Words::new(
                format!("{} reviews to train on. {}", with_thousands(size), words.en),
                format!("학습 데이터 {}건. {}", with_thousands(size), words.ko),
            ),
        };
        let mut settings: Vec<&str> = Vec::new();
        for cell in &self.cells {
            if !settings.contains(&cell.key.setting.as_str()) {
                settings.push(&cell.key.setting);
            }
        }
        let name = match settings.iter().position(|known| *known == setting) {
            Some(place) if settings.len() > 1 => format!("quality-{}-{size}", place + 1),
            _ => format!("quality-{size}"),
        };
        StudyTable { name, title, note, table }
    }

    /// How to read a table of accuracies, of which so many test reviews stand in the training file.
    fn about_quality(
        &self,
        of_group: impl Fn(&&Cell) -> bool + Copy,
        seen: usize,
        paper: bool,
    ) -> Words {
        let mut note = Words::new(
            "Accuracy is the mean ± standard deviation over seeds. Its interval is Student's t over seeds \
             with the test set fixed, or Wilson's over reviews if there is one seed.",
            "정확도는 시드 평균 ± 표준편차입니다. 신뢰구간은 시드가 여럿이면 테스트 데이터를 고정하고 시드 간 변동만 반영한 t \
             분포 신뢰구간, 하나면 리뷰에 대한 Wilson 신뢰구간입니다.",
        );
        let classes = |cell: &Cell| cell.config().map_or(2, |config| config.data.labels.len());
        let classes = self.cells.iter().filter(of_group).map(classes).max();
        if classes.is_some_and(|classes| classes > 2) {
            note.en += " Precision, recall and F1 are computed for each class over all reviews and then \
                        averaged over the classes.";
            note.ko +=
                " 정밀도, 재현율, F1은 모든 리뷰에서 클래스마다 계산해 클래스 평균을 낸 값입니다.";
        } else {
            let configs = || self.cells.iter().filter(of_group).filter_map(|cell| cell.config());
            let mut sizes: Vec<usize> =
                configs().map(|config| config.evaluation.metric_batch_size).collect();
            sizes.dedup();
            let size = match sizes.as_slice() {
                [size] => Words::new(format!(" of {size}"), format!(" {size}건짜리")),
                _ => "".into(),
            };
            let name = configs().find_map(|config| config.data.label_names.get(1));
            let of = name.map_or_else(
                || Words::from(""),
                |name| {
                    Words::new(
                        format!(" those of class \"{name}\","),
                        format!(" ‘{name}’ 클래스에 대해"),
                    )
                },
            );
            note.en += &format!(
                " Precision, recall and F1 are{} pooled over all reviews. \"Batches\" are means over \
                 batches{}, which is how the paper's F1 appears to have been computed.",
                of.en, size.en
            );
            note.ko += &format!(
                " 정밀도, 재현율, F1은{} 모든 리뷰를 한데 모아 계산한 값입니다. ‘배치 평균’은{} 배치마다 계산해 평균한 값으로, \
                 논문의 F1도 이렇게 계산한 것으로 보입니다.",
                of.ko, size.ko
            );
        }
        if seen > 0 {
            let seen = with_thousands(seen);
            note.en += &format!(
                " \"New texts\" leaves out the {seen} test reviews whose text is also in the training file."
            );
            note.ko += &format!(
                " ‘중복 제외’는 학습 파일에도 같은 본문이 있는 테스트 리뷰 {seen}건을 뺀 정확도입니다."
            );
        }
        if let Some(split) = self.trained_on(of_group) {
            note.en += &split.en;
            note.ko += &split.ko;
        }
        if self.paper_scale.is_some() && paper {
            note.en += " The paper's figures are those of multilingual BERT on more reviews: they are \
                        comparable in order, not in level.";
            note.ko += " 논문의 수치는 더 많은 리뷰로 학습한 다국어 BERT의 것이므로, 순위는 비교할 수 있어도 절댓값은 \
                        비교할 수 없습니다.";
        }
        if self.cells.iter().filter(of_group).any(|cell| cell.key.is_baseline()) {
            note.en += " A baseline has no neural network, no recipe and no seed, and is in no test of \
                        differences.";
            note.ko +=
                " 베이스라인은 신경망도 학습 설정도 시드도 없으며, 차이 검정에서는 제외했습니다.";
        }
        note
    }

    /// How many reviews were trained on and validated on, where that is not the size of the cells; per
    /// recipe if those differ.
    fn trained_on(&self, of_group: impl Fn(&&Cell) -> bool) -> Option<Words> {
        let mut splits: Vec<((usize, usize), Vec<&str>)> = Vec::new();
        let mut differs = false;
        for cell in self.cells.iter().filter(of_group) {
            let results = cell.finished().find_map(|run| run.record.results.as_ref());
            let Some(results) = results.filter(|_| !cell.key.is_baseline()) else { continue };
            let split = (results.train_reviews, results.validation_reviews);
            differs |= split.1 > 0 || cell.key.train_size != Rows::Exactly(split.0);
            let index = splits.iter().position(|(known, _)| *known == split).unwrap_or_else(|| {
                splits.push((split, Vec::new()));
                splits.len() - 1
            });
            if !splits[index].1.contains(&cell.key.recipe.as_str()) {
                splits[index].1.push(&cell.key.recipe);
            }
        }
        if !differs {
            return None;
        }
        let several = splits.len() > 1;
        let (mut en, mut ko) = (Vec::new(), Vec::new());
        for ((train, validation), recipes) in &splits {
            let [train, validation] = [train, validation].map(|count| with_thousands(*count));
            let recipes = recipes.join(", ");
            let of = if several { format!(" ({recipes})") } else { String::new() };
            en.push(format!("{train} and {validation}{of}"));
            ko.push(format!("{train}건과 {validation}건{of}"));
        }
        Some(Words::new(
            format!(" Reviews trained on and validated on: {}.", en.join(", ")),
            format!(" 실제로 학습과 검증에 쓴 리뷰: {}.", ko.join(", ")),
        ))
    }

    /// A setting in both languages; as the plan has it where no run says more.
    pub fn setting(&self, setting: &str) -> Words {
        let mut cells = self.cells.iter().filter(|cell| cell.key.setting == setting);
        let config = cells.find_map(|cell| cell.config());
        // A plan of another version may have put it differently.
        let config = config.filter(|config| results::setting(config) == setting);
        config.map_or_else(|| setting.into(), setting_words)
    }

    /// The methods of each recipe and size against each other; none if there is no pair.
    pub fn difference_table(&self) -> Option<StudyTable> {
        let mut table = BilingualTable::new(
            [
                recipe_title(),
                Words::new("reviews", "학습 데이터\n크기"),
                Words::new("first", "방법 A"),
                Words::new("second", "방법 B"),
                Words::new("difference", "차이"),
                bootstrap_interval(),
                Words::new("paper's\ndifference", "논문의\n차이"),
                Words::new("only first\nright", "A만\n정답"),
                Words::new("only second\nright", "B만\n정답"),
                Words::new("McNemar's\np", "McNemar\np"),
                holm_p(),
                Words::new("sign-flip\np", "부호 뒤집기\n검정 p"),
            ],
            4,
        );
        let (mut any, mut probe) = (false, false);
        for contrast in self.contrasts.iter().filter(|contrast| contrast.is_of_methods()) {
            let (first, second) = (&self.cells[contrast.first], &self.cells[contrast.second]);
            let paper = first.paper(self.paper_scale).zip(second.paper(self.paper_scale));
            any = true;
            probe |= second.key.is_probe();
            let mut row = vec![
                recipe(first).into(),
                size_words(first.key.train_size),
                method_words(&first.key.label),
                method_words(&second.key.label),
            ];
            let figures = ContrastFigures::of(contrast);
            let paper = paper.map(|(first, second)| first.accuracy - second.accuracy);
            let paper = paper.map_or_else(|| NONE.into(), |paper| format!("{paper:+.3}").into());
            row.extend([figures.difference, figures.interval, paper]);
            row.extend([figures.only_first, figures.only_second]);
            row.extend([figures.mcnemar_p, figures.holm_p, figures.sign_flip_p]);
            table.push(row);
        }
        let mut note = self.about_differences();
        if probe {
            note.en +=
                " Comparisons with the classifier on a frozen model are corrected by themselves.";
            note.ko += " 모델을 고정하고 분류기만 학습한 방법과의 비교는 따로 보정했습니다.";
        }
        any.then(|| StudyTable {
            name: "differences".into(),
            title: Words::new(
                "Differences of accuracy, first less second",
                "정확도 차이(방법 A − 방법 B)",
            ),
            note,
            table,
        })
    }

    /// How differences are estimated and tested.
    fn about_differences(&self) -> Words {
        let resamples = with_thousands(Study::RESAMPLING.resamples);
        let several = self.has_several_seeds();
        let mut note = if several {
            Words::new(
                format!(
                    "The interval combines a bootstrap over reviews ({resamples} resamples) with \
                     Student's t for the variation between seeds: resampling so few seeds would make it \
                     too short."
                ),
                format!(
                    "신뢰구간은 리뷰 부트스트랩(재표집 {resamples}회)에 시드 간 변동을 t 분포로 더해 구했습니다. 시드가 몇 개뿐이어서 \
                     시드까지 재표집하면 구간이 지나치게 좁아지기 때문입니다."
                ),
            )
        } else {
            Words::new(
                format!(
                    "The interval is of a bootstrap over reviews ({resamples} resamples). There is one \
                     seed: the interval leaves out what other seeds may change."
                ),
                format!(
                    "신뢰구간은 리뷰 부트스트랩(재표집 {resamples}회)으로 구했습니다. 시드가 하나여서 시드에 따른 변동은 포함하지 \
                     않습니다."
                ),
            )
        };
        note.en += " McNemar's test (exact below 25 reviews on which only one is right, else χ² with \
                    continuity correction) and the counts compare the runs of median accuracy. Its p is \
                    corrected by Holm for all comparisons of a recipe. The 95 % intervals are not \
                    corrected for multiple comparisons.";
        note.ko += " McNemar 검정(한쪽만 맞힌 리뷰가 25건 미만이면 정확 검정, 아니면 연속성 보정 χ² 검정)과 한쪽만 맞힌 건수는 \
                    정확도가 중앙값인 실험끼리 비교한 것입니다. p값은 같은 학습 설정의 모든 비교에 대해 Holm 방법으로 보정했습니다. \
                    95% 신뢰구간은 다중 비교를 보정하지 않은 값입니다.";
        if several {
            note.en += " The sign-flip test is over seeds: with n seeds its p is not below 2 to the power \
                        of 1 − n. It needs runs of the same seeds. Where some are missing, the interval \
                        takes the seeds of the two methods as independent.";
            note.ko += " 부호 뒤집기(sign-flip) 순열 검정은 시드에 대한 검정으로, 시드가 n개이면 p값은 2의 (1 − n)제곱보다 작아질 \
                        수 없습니다. 이 검정에는 두 방법의 시드가 같아야 합니다. 빠진 시드가 있으면 신뢰구간은 두 방법의 시드를 서로 \
                        독립으로 보고 구합니다.";
        }
        note
    }

    /// What another recipe changes, cell by cell; none if there is none.
    pub fn recipe_table(&self) -> Option<StudyTable> {
        let mut table = BilingualTable::new(
            [
                recipe_title(),
                Words::new("reviews", "학습 데이터\n크기"),
                Words::new("method", "방법"),
                Words::new("what differs from the paper's recipe", "논문과 다른 설정 항목"),
                accuracy(),
                Words::new("difference", "차이"),
                bootstrap_interval(),
                Words::new("gap to vanilla\nclosed", "전체 미세조정과의\n격차 해소율"),
                holm_p(),
            ],
            4,
        );
        let causes: Vec<_> =
            Verdict::new(self).recipes.into_iter().flat_map(|verdict| verdict.causes).collect();
        let mut any = false;
        for (index, contrast) in self.contrasts.iter().enumerate() {
            if contrast.is_of_methods() {
                continue;
            }
            any = true;
            let cell = &self.cells[contrast.first];
            let closed = causes.iter().find(|cause| cause.contrast == index);
            let closed = closed.and_then(|cause| cause.closed);
            let closed = closed.map(|closed| {
                let percent = format!("{:.0}", closed * 100.0);
                Words::new(format!("{percent} %"), format!("{percent}%"))
            });
            let figures = ContrastFigures::of(contrast);
            table.push([
                recipe(cell).into(),
                size_words(cell.key.train_size),
                method_words(&cell.key.label),
                changes(contrast).into(),
                cell.summary(Metric::Accuracy)
                    .map_or_else(|| missing(cell), |summary| spread(summary).into()),
                figures.difference,
                figures.interval,
                closed.unwrap_or_else(|| NONE.into()),
                figures.holm_p,
            ]);
        }
        any.then(|| StudyTable {
            name: "recipes".into(),
            title: Words::new(
                "What other recipes change, against the paper's",
                "학습 설정을 논문과 다르게 했을 때의 변화",
            ),
            note: Words::new(
                "The difference is the accuracy less that of the same method with the paper's recipe. \
                 \"Gap to vanilla closed\" is its share of the gap between vanilla and LoRA with the paper's \
                 recipe. Holm's correction counts all rows of one model and test set, those of frozen models \
                 by themselves.",
                "차이는 해당 설정의 정확도에서, 같은 방법을 논문의 학습 설정으로 학습했을 때의 정확도를 뺀 값입니다. ‘격차 해소율’은 \
                 그 값을 논문의 학습 설정에서 나타난 전체 미세조정과 LoRA의 격차로 나눈 것입니다. Holm 보정은 모델과 테스트 데이터가 \
                 같은 모든 행을 대상으로 하며, 고정된 모델의 행은 따로 보정합니다.",
            ),
            table,
        })
    }

    /// Time, memory and size.
    pub fn cost_table(&self) -> StudyTable {
        let mut table = BilingualTable::new(
            [
                recipe_title(),
                Words::new("reviews", "학습 데이터\n크기"),
                Words::new("method", "방법"),
                Words::new("time per\nepoch", "에폭당\n시간"),
                Words::new("of\nvanilla's", "Vanilla\n대비"),
                Words::new("paper", "논문"),
                Words::new("paper, of\nvanilla's", "논문의\nVanilla 대비"),
                Words::new("whole run", "실험\n전체 시간"),
                Words::new("trainable", "학습 가능\n파라미터 수"),
                Words::new("parameters", "전체\n파라미터 수"),
                Words::new("peak MiB", "최대 메모리\n(MiB)"),
            ],
            3,
        );
        for cell in &self.cells {
            let vanilla = self.vanilla_of(cell);
            let seconds = |cell: &Cell| cell.mean(Metric::EpochSeconds);
            let time = |seconds: Option<f64>| seconds.map_or_else(|| NONE.into(), duration);
            let ratio = |part: Option<f64>, whole: Option<f64>| match (part, whole) {
                (Some(part), Some(whole)) => format!("{:.2}", part / whole).into(),
                _ => NONE.into(),
            };
            let theirs = |cell: &Cell| {
                let (low, high) = cell.paper(self.paper_scale)?.epoch_seconds;
                Some(f64::from(low + high) / 2.0)
            };
            let count = |metric| {
                cell.mean(metric).map_or_else(
                    || NONE.into(),
                    |value| with_thousands(value.round() as usize).into(),
                )
            };
            table.push([
                recipe(cell).into(),
                size_words(cell.key.train_size),
                method_words(&cell.key.label),
                time(seconds(cell)),
                ratio(seconds(cell), vanilla.and_then(seconds)),
                time(theirs(cell)),
                ratio(theirs(cell), vanilla.and_then(theirs)),
                time(cell.mean(Metric::TotalSeconds)),
                count(Metric::TrainableParameters),
                count(Metric::Parameters),
                count(Metric::PeakMemoryMib),
            ]);
        }
        let mut note = Words::new(
            "Means over seeds. Time per epoch is of training steps alone. AdapterFusion's time per epoch \
             and trainable parameters are those of its second stage. The whole run has both stages, \
             validation and test.",
            "시드 평균입니다. 에폭당 시간은 학습 스텝만의 시간입니다. AdapterFusion의 에폭당 시간과 학습 가능 파라미터 수는 2단계의 \
             값입니다. 실험 전체 시간에는 두 단계와 검증, 테스트가 모두 들어갑니다.",
        );
        if self.is_compared_with_the_paper() {
            note.en += " The paper's times were measured on one V100.";
            note.ko += " 논문의 시간은 V100 한 장에서 잰 것입니다.";
        }
        let runs = self.runs().into_iter();
        let trained = runs.filter(|run| !run.record.config.method.is_baseline());
        let results = trained.filter_map(|run| run.record.results.as_ref());
        let alone: Vec<bool> =
            results.map(|results| results.epoch_seconds_alone.is_some()).collect();
        let again = alone.iter().filter(|alone| **alone).count();
        if 0 < again && again < alone.len() {
            let runs = alone.len();
            note.en += &format!(
                " Of {again} of {runs} runs, time per epoch was measured again with nothing beside them. \
                 The others may have shared the machine with other runs when theirs was taken. Methods \
                 cannot be compared across the two."
            );
            note.ko += &format!(
                " 실험 {runs}개 중 {again}개는 에폭당 시간을 다른 작업 없이 다시 쟀고, 나머지는 다른 실험과 컴퓨터를 나눠 쓰며 잰 \
                 시간일 수 있습니다. 두 가지를 섞어 방법끼리 비교할 수는 없습니다."
            );
        } else if again > 0 {
            note.en += " Time per epoch was measured again with nothing beside it and every thread. The \
                        time of the whole run was taken while other runs shared the machine, so that \
                        methods cannot be compared by it.";
            note.ko += " 에폭당 시간은 다른 작업 없이 모든 스레드를 써서 다시 쟀습니다. 실험 전체 시간은 다른 실험과 컴퓨터를 나눠 쓰며 \
                        잰 것이어서 방법끼리 비교할 수 없습니다.";
        }
        StudyTable {
            name: "cost".into(),
            title: Words::new("Time, memory and size", "시간, 메모리, 파라미터 수"),
            note,
            table,
        }
    }

    /// Runs that failed, are stuck at chance, or were planned and not made; none if there are none.
    pub fn trouble_table(&self) -> Option<StudyTable> {
        let mut table = BilingualTable::new(
            [
                recipe_title(),
                Words::new("method", "방법"),
                Words::new("reviews", "학습 데이터\n크기"),
                Words::new("seed", "시드"),
                Words::new("what", "내용"),
            ],
            5,
        );
        let mut any = false;
        for cell in &self.cells {
            let chance = cell.at_chance().into_iter();
            let chance = chance.map(|seed| (seed, Words::new("at chance", "우연 수준")));
            let failed = cell.failed().into_iter().map(|(seed, why)| {
                (seed, Words::new(format!("failed: {why}"), format!("실패: {why}")))
            });
            let missing = cell.missing.iter().map(|&seed| (seed, not_run()));
            for (seed, what) in chance.chain(failed).chain(missing) {
                any = true;
                table.push([
                    recipe(cell).into(),
                    method_words(&cell.key.label),
                    size_words(cell.key.train_size),
                    seed.to_string().into(),
                    what,
                ]);
            }
        }
        any.then(|| StudyTable {
            name: "trouble".into(),
            title: Words::new("Runs at chance, failed or not run", "우연 수준이거나 실패했거나 실행하지 않은 실험"),
            note: Words::new(
                "\"At chance\" means that the interval of the accuracy does not lie above the share of the \
                 most frequent class. Such runs count like all others.",
                "‘우연 수준’은 정확도 신뢰구간의 하한이 최빈 클래스의 비율을 넘지 못한다는 뜻입니다. 이런 실험도 집계에 \
                 포함했습니다.",
            ),
            table,
        })
    }

    /// Vanilla of a cell's recipe and size; of the paper's recipe where its own has none.
    pub fn vanilla_of(&self, cell: &Cell) -> Option<&Cell> {
        let find = |recipe: &str| {
            self.cells.iter().find(|other| {
                let key = &other.key;
                (key.method, key.recipe.as_str()) == (MethodKind::Vanilla, recipe)
                    && (&key.setting, key.train_size) == (&cell.key.setting, cell.key.train_size)
            })
        };
        find(&cell.key.recipe).or_else(|| find(super::contrast::BASE_RECIPE))
    }

    /// All tables as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n", self.name);
        for StudyTable { title, note, table, .. } in self.tables() {
            let table = table.english().markdown();
            text += &format!("\n## {}\n\n{table}\n\n{}\n", title.en, note.en);
        }
        text
    }

    /// All tables as LaTeX, for a document that loads `booktabs` and `graphicx`.
    pub fn latex(&self) -> String {
        let mut text = String::from(
            "% Needs \\usepackage{booktabs}, \\usepackage{graphicx}; \\input this file.\n",
        );
        for StudyTable { name, title, note, table } in self.tables() {
            let caption = format!("{}. {}", title.en, note.en);
            text += &table.english().latex(&caption, &format!("tab:{}-{name}", self.name));
        }
        text
    }
}

fn recipe_title() -> Words {
    Words::new("recipe", "학습 설정")
}

fn accuracy() -> Words {
    Words::new("accuracy", "정확도")
}

fn precision() -> Words {
    Words::new("precision", "정밀도")
}

fn recall() -> Words {
    Words::new("recall", "재현율")
}

fn bootstrap_interval() -> Words {
    Words::new("95 % interval,\nbootstrap", "95% 신뢰구간,\n부트스트랩")
}

fn holm_p() -> Words {
    Words::new("p after\nHolm", "Holm 보정\np")
}

fn not_run() -> Words {
    Words::new("not run", "실행 안 함")
}

fn recipe(cell: &Cell) -> &str {
    if cell.key.recipe.is_empty() { NONE } else { &cell.key.recipe }
}

fn duration(seconds: f64) -> Words {
    let text = minutes_and_seconds(seconds);
    match text.strip_suffix(" s") {
        Some(seconds) => Words::new(text.clone(), format!("{seconds}초")),
        None => text.into(),
    }
}

/// How many runs a cell has, of how many, and how many of them learned nothing.
fn runs(cell: &Cell) -> Words {
    let finished = cell.finished().count();
    let planned = cell.runs.len() + cell.missing.len();
    let mut text = Words::from(finished.to_string());
    if finished < planned {
        text = Words::new(format!("{finished} of {planned}"), format!("{planned}개 중 {finished}"));
    }
    let chance = cell.at_chance().len();
    if chance > 0 {
        text.en += &format!(", {chance} at chance");
        text.ko += &format!(", 우연 수준 {chance}");
    }
    text
}

fn missing(cell: &Cell) -> Words {
    if cell.runs.is_empty() { not_run() } else { Words::new("failed", "실패") }
}

fn spread(summary: SeedSummary) -> String {
    match summary.spread {
        Some(spread) => format!("{:.4} ± {:.4}", summary.mean, spread.standard_deviation),
        None => format!("{:.4}", summary.mean),
    }
}

fn interval(Interval { low, high }: Interval) -> Words {
    Words::new(format!("{low:.4} to {high:.4}"), format!("{low:.4}~{high:.4}"))
}

fn digits(value: Option<f64>, digits: usize) -> Words {
    value.map_or_else(|| NONE.into(), |value| format!("{value:.digits$}").into())
}

/// What differs, as `learning_rate 2e-5 → 1e-3`.
fn changes(contrast: &Contrast) -> String {
    let change = |factor: &super::Factor| {
        let key = factor.key.split_once('.').map_or(factor.key.as_str(), |(_, key)| key);
        format!("{key} {} → {}", factor.first, factor.second)
    };
    contrast.factors.iter().map(change).collect::<Vec<_>>().join("; ")
}

/// With its sign, and so many digits that what is not 0 does not look so; nothing is less than nothing.
pub fn difference(value: f64) -> String {
    // Beyond nine digits it is nothing but the rounding of a sum.
    let vanishes = |digits: &usize| value.abs() < 0.5 * 0.1_f64.powi(*digits as i32);
    match (4..=9).find(|digits| !vanishes(digits)) {
        Some(digits) => format!("{value:+.digits$}"),
        None => "+0.0000".into(),
    }
}

/// What a contrast comes to, as tables show it.
struct ContrastFigures {
    difference: Words,
    /// Of the difference.
    interval: Words,
    /// Reviews on which only the first cell's run is right.
    only_first: Words,
    /// Those on which only the second's is.
    only_second: Words,
    mcnemar_p: Words,
    holm_p: Words,
    sign_flip_p: Words,
}

impl ContrastFigures {
    /// Without a pair of runs there are none.
    fn of(contrast: &Contrast) -> Self {
        let none = || Words::from(NONE);
        let Some(pair) = &contrast.pair else {
            return Self {
                difference: none(),
                interval: none(),
                only_first: none(),
                only_second: none(),
                mcnemar_p: none(),
                holm_p: none(),
                sign_flip_p: none(),
            };
        };
        let bootstrap = pair.bootstrap;
        let Interval { low, high } = bootstrap.interval;
        Self {
            difference: difference(bootstrap.difference).into(),
            interval: Words::new(
                format!("{} to {}", difference(low), difference(high)),
                format!("{}~{}", difference(low), difference(high)),
            ),
            only_first: pair.agreement.only_first.to_string().into(),
            only_second: pair.agreement.only_second.to_string().into(),
            mcnemar_p: p_value(pair.mcnemar.p()).into(),
            holm_p: p_value(pair.holm_p).into(),
            sign_flip_p: pair.seeds.map_or_else(none, |seeds| p_value(seeds.sign_flip_p).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nsmc_experiment::{ExperimentConfig, RunRecord};

    use super::*;
    use crate::study::{Plan, PlannedRun, fabricated};

    /// With a scale, on the paper's data.
    fn study(paper_scale: Option<usize>) -> Study {
        let folder = tempfile::tempdir().unwrap();
        fabricated::grid(folder.path());
        let mut study = Study::read_runs(folder.path(), None).unwrap();
        study.paper_scale = paper_scale;
        if paper_scale.is_some() {
            set_dataset(&mut study, results::PAPER_DATASET);
        }
        study
    }

    fn set_dataset(study: &mut Study, dataset: &str) {
        for run in study.cells.iter_mut().flat_map(|cell| &mut cell.runs) {
            Arc::make_mut(run).record.config.data.dataset = dataset.into();
        }
    }

    fn row<'a>(markdown: &'a str, parts: &[&str]) -> Vec<&'a str> {
        let mut lines = markdown.lines();
        let line = lines.find(|line| parts.iter().all(|part| line.contains(part)));
        line.unwrap_or_else(|| panic!("{parts:?}\nin no line of\n{markdown}"))
            .split('|')
            .map(str::trim)
            .collect()
    }

    #[test]
    fn a_difference_that_is_not_0_does_not_look_so() {
        for (value, expected) in [
            (0.0, "+0.0000"),
            (-0.0, "+0.0000"),
            (0.0123, "+0.0123"),
            (-0.000_06, "-0.0001"),
            (0.000_04, "+0.00004"),
            (-0.000_000_3, "-0.0000003"),
            // Rounding alone: 0.3 - 0.2 - 0.1.
            (-2.8e-17, "+0.0000"),
        ] {
            assert_eq!(difference(value), expected, "{value:e}");
        }
    }

    #[test]
    fn times_that_were_taken_in_two_ways_are_said_to_compare_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fabricated::grid(folder.path());
        let note = || Study::read_runs(folder.path(), None).unwrap().cost_table().note;
        assert!(!note().en.contains("measured again"));
        let study = Study::read_runs(folder.path(), None).unwrap();
        let finished: Vec<_> =
            study.runs().into_iter().filter(|run| run.record.results.is_some()).collect();
        let runs = finished.len();
        for (index, run) in finished.into_iter().enumerate() {
            let mut record = run.record.clone();
            record.results.as_mut().unwrap().epoch_seconds_alone = Some(1.5);
            record.write(&folder.path().join(&record.run_id).join("record.json")).unwrap();
            let mixed =
                format!("Of {} of {runs} runs, time per epoch was measured again", index + 1);
            let (en, last) = (note().en, index + 1 == runs);
            assert_eq!(en.contains(&mixed), !last, "{en}");
            assert_eq!(en.contains("Time per epoch was measured again with nothing"), last, "{en}");
        }
    }

    #[test]
    fn a_run_of_two_recipes_is_one_run_of_which_a_time_was_taken() {
        let folder = tempfile::tempdir().unwrap();
        let paper = fabricated::config("paper", 1000, 0);
        let lora = fabricated::lora(paper.clone(), 64, 1.0);
        let tuned = ExperimentConfig { recipe: "tuned".into(), ..paper.clone() };
        for config in [&paper, &lora] {
            fabricated::run(folder.path(), config, 0.8, 1.0);
        }
        let path = folder.path().join(paper.run_id()).join("record.json");
        let mut record = RunRecord::read(&path).unwrap();
        record.results.as_mut().unwrap().epoch_seconds_alone = Some(1.5);
        record.write(&path).unwrap();
        let runs = [&paper, &lora, &tuned].map(PlannedRun::of).into();
        let plan = Plan { profile: "test".into(), paper_scale: None, runs };
        let study = Study::read_runs(folder.path(), Some(plan)).unwrap();
        assert_eq!(study.cells.len(), 3);
        let note = study.cost_table().note.en;
        assert!(note.contains("Of 1 of 2 runs, time per epoch was measured again"), "{note}");
    }

    #[test]
    fn a_table_says_of_which_class_it_is_and_how_many_of_its_reviews_were_trained_on() {
        let study = study(None);
        let note = &study.quality_tables()[0].note;
        let [train, validation] = study.runs()[0]
            .record
            .results
            .as_ref()
            .map(|results| [results.train_reviews, results.validation_reviews])
            .unwrap();
        for (text, class) in [
            (&note.en, "F1 are those of class \"positive\", pooled over all reviews."),
            (&note.ko, "F1은 ‘positive’ 클래스에 대해 모든 리뷰를 한데 모아"),
            (&note.en, "\"Batches\" are means over batches of 32, which"),
            (&note.ko, "‘배치 평균’은 32건짜리 배치마다"),
        ] {
            assert!(text.contains(class), "{text}");
        }
        let said = format!("Reviews trained on and validated on: {train} and {validation}.");
        assert!(note.en.contains(&said), "{}", note.en);
        assert!(note.ko.contains(&format!("{train}건과 {validation}건")), "{}", note.ko);
    }

    #[test]
    fn the_papers_figures_stand_beside_ours_only_where_the_profile_says_so() {
        let without = study(None);
        for StudyTable { table, note, .. } in without.quality_tables() {
            assert!(!table.english().markdown().contains("paper (mBERT"));
            assert!(!note.en.contains("comparable in order"));
        }
        // 1,000 reviews stand for the paper's 150,000.
        let scaled = study(Some(150));
        let tables = scaled.quality_tables();
        let markdown = tables[0].table.english().markdown();
        assert!(markdown.contains("paper (mBERT, 150,000) accuracy"), "{markdown}");
        assert!(tables[0].note.en.contains("comparable in order, not in level"));
        let vanilla = row(&markdown, &["paper ", "Vanilla"]);
        assert_eq!(vanilla[6], "0.871", "beside our accuracy and its interval");
        assert_eq!(vanilla[7], "0.8577", "without the texts of the training file");
        assert_eq!([vanilla[12], vanilla[14], vanilla[16]], ["0.864", "0.882", "0.869"]);
        assert!(tables[0].note.en.contains("\"New texts\" leaves out the "));
        // 500 stand for 75,000, which the paper did not have.
        assert!(!tables[1].table.english().markdown().contains("paper (mBERT"));
        let cost = scaled.cost_table().table.english().markdown();
        // AdapterFusion: 749.5 of 1022.5 seconds in the paper, 0.73 here.
        let fusion = row(&cost, &["paper ", "1,000", "AdapterFusion"]);
        assert_eq!((fusion[5], fusion[6], fusion[7]), ("0.73", "12:30", "0.73"));
    }

    #[test]
    fn the_papers_figures_stand_beside_no_other_data() {
        let mut own = study(Some(150));
        set_dataset(&mut own, "mine");
        assert!(!own.is_compared_with_the_paper());
        assert!(
            !own.markdown().contains("paper (mBERT") && !own.csv().contains("batch_mean_f1,paper,")
        );
        // A cell that was not run is of the data that its plan names.
        for (dataset, beside) in [("nsmc", true), ("mine", false)] {
            let mut config = fabricated::config("paper", 1000, 0);
            config.data.dataset = dataset.into();
            let runs = vec![PlannedRun::of(&config)];
            let plan = Plan { profile: "test".into(), paper_scale: Some(150), runs };
            let study = Study::new(plan, Vec::new()).unwrap();
            assert_eq!(study.is_compared_with_the_paper(), beside, "{dataset}");
        }
    }

    #[test]
    fn a_title_separates_thousands_in_both_languages_and_the_plan_keeps_its_setting() {
        let study = study(None);
        let title = &study.quality_tables()[0].title;
        assert!(title.en.ends_with(", 2,000 test reviews"), "{title:?}");
        assert!(title.ko.ends_with(" 테스트 리뷰 2,000건"), "{title:?}");
        assert!(study.cells[0].key.setting.ends_with(", 2000 test reviews"));
        // As a plan of another version may have put it.
        assert_eq!(study.setting("another model"), "another model".into());
    }

    #[test]
    fn korean_has_no_space_before_a_percent_sign() {
        let study = study(Some(150));
        let mut percents = 0;
        for StudyTable { title, note, table, .. } in study.tables() {
            let cells = table.rows().iter().flatten().chain(table.header());
            for Words { ko, .. } in cells.chain([&title, &note]) {
                percents += ko.matches('%').count();
                assert!(!ko.contains(" %"), "{ko}");
            }
        }
        assert!(percents > 5, "{percents}");
    }

    #[test]
    fn failed_and_stuck_runs_are_shown_and_counted() {
        let study = study(None);
        let markdown = study.markdown();
        assert_eq!(row(&markdown, &["| paper ", "LoRA r=64", "2 of 3"])[3], "2 of 3");
        assert_eq!(row(&markdown, &["| lora-rate", "| at chance"])[3], "1,000");
        let rate = row(&markdown, &["lora-rate", "2, 1 at chance"]);
        // The mean has the run at chance in it: (0.5 + 0.684) / 2.
        let mean: f64 = rate[4].split(' ').next().unwrap().parse().unwrap();
        assert!((mean - 0.592).abs() < 0.02, "{rate:?}");
        assert!(markdown.contains("failed: out of memory"));
    }

    #[test]
    fn a_row_between_recipes_names_the_keys_that_differ() {
        let markdown = study(None).recipe_table().unwrap().table.english().markdown();
        let alpha = row(&markdown, &["lora-alpha"]);
        assert_eq!(alpha[4], "alpha 1 → 128");
        assert!(alpha[8].ends_with(" %"), "{alpha:?}");
        let tuned = row(&markdown, &["tuned", "1,000", "LoRA"]);
        assert_eq!(tuned[4], "alpha 1 → 128; trains [] → [head]; learning_rate 2e-5 → 3e-4");
    }

    #[test]
    fn a_figure_of_a_contrast_stands_under_its_title() {
        let study = study(Some(150));
        let contrast = study.contrasts.iter().find(|contrast| contrast.is_of_methods()).unwrap();
        let pair = contrast.pair.as_ref().unwrap();
        let [first, second] = [contrast.first, contrast.second].map(|cell| &study.cells[cell]);
        let table = study.difference_table().unwrap().table;
        let titles = table.header().iter().map(|title| title.en.replace('\n', " "));
        let cells = table.rows()[0].iter().map(|cell| cell.en.clone());
        let found: Vec<(String, String)> = titles.zip(cells).skip(4).collect();
        let paper = |cell: &Cell| cell.paper(study.paper_scale).unwrap().accuracy;
        let interval = pair.bootstrap.interval;
        let expected = [
            ("difference", difference(pair.bootstrap.difference)),
            (
                "95 % interval, bootstrap",
                format!("{} to {}", difference(interval.low), difference(interval.high)),
            ),
            ("paper's difference", format!("{:+.3}", paper(first) - paper(second))),
            ("only first right", pair.agreement.only_first.to_string()),
            ("only second right", pair.agreement.only_second.to_string()),
            ("McNemar's p", p_value(pair.mcnemar.p())),
            ("p after Holm", p_value(pair.holm_p)),
            ("sign-flip p", p_value(pair.seeds.unwrap().sign_flip_p)),
        ];
        assert_eq!(found, expected.map(|(title, figure)| (title.to_owned(), figure)));
    }

    #[test]
    fn latex_escapes_what_it_must_and_has_a_column_per_cell() {
        let latex = study(Some(150)).latex();
        assert!(latex.contains("\\toprule") && latex.contains("95 \\% interval"));
        assert!(!latex.contains("gap_"), "an underscore must be escaped");
        for block in latex.split("\\begin{tabular}").skip(1) {
            let columns = block[1..].split('}').next().unwrap().len();
            let body = block.split("\\midrule").nth(1).unwrap();
            let body = body.split("\\bottomrule").next().unwrap();
            let mut rows = 0;
            for line in body.lines().filter(|line| line.ends_with("\\\\")) {
                rows += 1;
                assert_eq!(line.matches(" & ").count() + 1, columns, "{line}");
            }
            assert!(rows > 0);
        }
    }

    #[test]
    fn every_word_of_a_table_has_its_translation() {
        let is_korean = |text: &str| text.chars().any(|c| ('가'..='힣').contains(&c));
        // Names, and what reads the same in both.
        let same = ["F1", "F1,\nbatches", "McNemar's\np"];
        for StudyTable { title, note, table, .. } in study(Some(150)).tables() {
            assert!(is_korean(&title.ko) && is_korean(&note.ko), "{title:?}");
            for cell in table.header() {
                assert!(is_korean(&cell.ko) || same.contains(&cell.en.as_str()), "{cell:?}");
                assert_eq!(cell.en.lines().count() > 3, cell.ko.lines().count() > 3, "{cell:?}");
            }
            let cells = table.rows().iter().flatten();
            for cell in cells.filter(|cell| cell.en.contains(" to ") || cell.en.contains("chance"))
            {
                assert!(cell.ko.contains('~') || is_korean(&cell.ko), "{cell:?}");
                assert!(!cell.ko.contains(" to "), "{cell:?}");
            }
        }
    }
}
