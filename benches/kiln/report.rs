//! What a run found, as one JSON document and as a table to read.

use serde_json::{Value, json};

use crate::load::Round;

/// What a goal asks of its figure.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn reached_by(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }

    fn json(self) -> Value {
        match self {
            Self::AtLeast(least) => json!({ "atLeast": least }),
            Self::AtMost(most) => json!({ "atMost": most }),
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {}", short(least)),
            Self::AtMost(most) => format!("<= {}", short(most)),
        }
    }
}

/// By what operations are counted when their cost is given.
#[derive(Clone, Copy)]
pub(crate) enum Per {
    ThousandOperations,
    Gigabyte,
}

/// The server's side of a comparison, or the other side.
pub(crate) struct Side {
    pub what: &'static str,
    pub rounds: Vec<Round>,
}

impl Side {
    pub(crate) fn new(what: &'static str, rounds: Vec<Round>) -> Self {
        Self { what, rounds }
    }

    /// The fastest round: what disturbs a round only ever makes it slower.
    pub(crate) fn best(&self) -> &Round {
        self.rounds
            .iter()
            .max_by(|one, other| one.rate().total_cmp(&other.rate()))
            .expect("every side has at least one round")
    }

    /// The least of a figure over all rounds.
    pub(crate) fn least(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        self.rounds.iter().map(figure).fold(f64::INFINITY, f64::min)
    }

    /// The least processor time of the server.
    pub(crate) fn cpu(&self, per: Per) -> f64 {
        self.least(match per {
            Per::ThousandOperations => Round::cpu_per_thousand,
            Per::Gigabyte => Round::cpu_per_gigabyte,
        })
    }

    fn json(&self, per: Per) -> Value {
        let best = self.best();
        let mut document = json!({
            "what": self.what,
            "rate": best.rate(),
            "megabytesPerSecond": best.megabytes_per_second(),
            "p50Ms": best.quantile(0.50),
            "p99Ms": best.quantile(0.99),
            "rounds": self.rounds.iter().map(Round::json).collect::<Vec<_>>(),
        });
        let (name, cpu) = match per {
            Per::ThousandOperations => ("cpuSecondsPerThousand", self.cpu(per)),
            Per::Gigabyte => ("cpuSecondsPerGigabyte", self.cpu(per)),
        };
        // Limits measured inside this process have no server whose time could be told apart.
        if cpu > 0.0 {
            document[name] = cpu.into();
        }
        document
    }
}

/// One line of the report.
pub(crate) struct Row {
    pub name: &'static str,
    /// What the figure is, in words.
    pub what: &'static str,
    pub result: Result<Finding, Missing>,
}

/// Why a line has no figure.
pub(crate) enum Missing {
    /// Something the comparison needs is not installed.
    Skipped(String),
    /// The server or the measurement failed.
    Failed(String),
}

/// The figure of a line and where it comes from.
pub(crate) struct Finding {
    pub figure: f64,
    pub goal: Option<Goal>,
    pub measured: Option<Side>,
    pub limit: Option<Side>,
    pub per: Per,
    /// Whatever else is worth knowing.
    pub details: Value,
}

impl Finding {
    /// A figure that stands for itself.
    pub(crate) fn plain(figure: f64, goal: Option<Goal>, details: Value) -> Self {
        Self { figure, goal, measured: None, limit: None, per: Per::ThousandOperations, details }
    }

    /// The rate as a share of the limit's.
    pub(crate) fn rate_share(measured: Side, limit: Side, goal: Goal) -> Self {
        let figure = measured.best().rate() / limit.best().rate();
        Self {
            figure,
            goal: Some(goal),
            measured: Some(measured),
            limit: Some(limit),
            per: Per::ThousandOperations,
            details: Value::Null,
        }
    }

    fn reached(&self) -> Option<bool> {
        self.goal.map(|goal| goal.reached_by(self.figure))
    }

    fn fill(&self, document: &mut Value) {
        document["figure"] = self.figure.into();
        if let Some(goal) = self.goal {
            document["goal"] = goal.json();
            document["reached"] = goal.reached_by(self.figure).into();
        }
        if let Some(side) = &self.measured {
            document["measured"] = side.json(self.per);
        }
        if let Some(side) = &self.limit {
            document["limit"] = side.json(self.per);
        }
        if !self.details.is_null() {
            document["details"] = self.details.clone();
        }
    }
}

impl Row {
    fn json(&self) -> Value {
        let mut document = json!({ "name": self.name, "what": self.what });
        match &self.result {
            Ok(finding) => finding.fill(&mut document),
            Err(Missing::Skipped(why)) => document["skipped"] = why.as_str().into(),
            Err(Missing::Failed(why)) => document["failed"] = why.as_str().into(),
        }
        document
    }

    pub(crate) fn failed(&self) -> bool {
        matches!(self.result, Err(Missing::Failed(_)))
    }

    pub(crate) fn missed(&self) -> bool {
        matches!(&self.result, Ok(finding) if finding.reached() == Some(false))
    }

    /// The line of the table.
    pub(crate) fn line(&self) -> String {
        match &self.result {
            Ok(finding) => self.finding_line(finding),
            Err(Missing::Skipped(why)) => format!("{:<22} skipped: {why}", self.name),
            Err(Missing::Failed(why)) => format!("{:<22} FAILED: {why}", self.name),
        }
    }

    fn finding_line(&self, finding: &Finding) -> String {
        let verdict = match finding.reached() {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        let goal = finding.goal.map(Goal::text).unwrap_or_default();
        let mut line =
            format!("{:<22} {:>9}  {goal:<8} {verdict:<8}", self.name, short(finding.figure));
        for (side, name) in [(&finding.measured, "kiln"), (&finding.limit, "limit")] {
            if let Some(side) = side {
                line.push_str(&side_text(side, name, finding.per));
            }
        }
        line.push_str("  ");
        line.push_str(self.what);
        line
    }
}

fn side_text(side: &Side, name: &str, per: Per) -> String {
    let best = side.best();
    let cpu = side.cpu(per);
    let (rate, unit) = match per {
        Per::ThousandOperations => (format!("{}/s", short(best.rate())), "s/k"),
        Per::Gigabyte => (format!("{} MB/s", short(best.megabytes_per_second())), "s/GB"),
    };
    let cpu = if cpu > 0.0 { format!(" {}{unit}", short(cpu)) } else { String::new() };
    let foreign = best.usage.foreign_share;
    let foreign =
        if foreign > DISTURBED { format!(" foreign {}", short(foreign)) } else { String::new() };
    let (half, most) = (short(best.quantile(0.50)), short(best.quantile(0.99)));
    format!(" {name} {rate} {half}/{most} ms{cpu}{foreign};")
}

/// The share of the machine that others may have before it is worth a word in the table.
const DISTURBED: f64 = 0.25;

/// Three digits that mean something.
fn short(figure: f64) -> String {
    match figure {
        whole if whole.abs() >= 100.0 => format!("{whole:.0}"),
        tens if tens.abs() >= 10.0 => format!("{tens:.1}"),
        ones if ones.abs() >= 1.0 => format!("{ones:.2}"),
        less => format!("{less:.3}"),
    }
}

pub(crate) fn document(settings: &Value, machine: &Value, rows: &[Row]) -> Value {
    let mut document = json!({
        "server": { "name": "kiln", "version": env!("CARGO_PKG_VERSION") },
        "machine": machine,
        "settings": settings,
        "workloads": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    round(&mut document);
    document
}

/// Cuts every number with a fraction to the digits that mean something.
fn round(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let figure = number.as_f64().unwrap_or_default();
            let rounded: f64 = format!("{figure:.4e}").parse().unwrap_or(figure);
            *value = rounded.into();
        }
        Value::Array(values) => values.iter_mut().for_each(round),
        Value::Object(fields) => fields.values_mut().for_each(round),
        _ => {}
    }
}

/// The table; figures of one run may be compared with one another and with nothing else.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = String::from("\nworkload                  figure  goal     verdict\n");
    for row in rows {
        table.push_str(&row.line());
        table.push('\n');
    }
    table
}
