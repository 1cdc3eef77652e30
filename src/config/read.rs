//! Reading a TOML tree with places: each value knows its line and key, each section knows which
//! keys were asked for and complains about the others. Nothing here knows what a key means.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{At, Notes, Place, quoted, suggestion};
use super::units;

/// A table being read.
pub struct Section<'d> {
    notes: &'d Notes,
    place: Place,
    /// The key with names and indices left out, as `pools.*.servers[].weight`.
    shape: String,
    entries: Vec<Entry<'d>>,
    asked: Vec<&'static str>,
}

struct Entry<'d> {
    name: &'d str,
    line: usize,
    value: &'d Spanned<DeValue<'d>>,
    taken: bool,
}

/// A value being read.
pub struct Field<'d> {
    notes: &'d Notes,
    pub place: Place,
    shape: String,
    value: &'d DeValue<'d>,
}

impl<'d> Section<'d> {
    pub fn whole(notes: &'d Notes, table: &'d DeTable<'d>) -> Section<'d> {
        Section::new(notes, Place { line: 1, key: String::new() }, String::new(), table)
    }

    fn new(notes: &'d Notes, place: Place, shape: String, table: &'d DeTable<'d>) -> Section<'d> {
        let mut entries: Vec<(usize, Entry<'d>)> = table
            .iter()
            .map(|(key, value)| {
                let start = key.span().start;
                let name = key.get_ref().as_ref();
                (start, Entry { name, line: notes.line(start), value, taken: false })
            })
            .collect();
        entries.sort_by_key(|(start, _)| *start);
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        Section { notes, place, shape, entries, asked: Vec::new() }
    }

    /// The value of `key`, if it was written.
    pub fn take(&mut self, key: &'static str) -> Option<Field<'d>> {
        self.asked.push(key);
        self.notes.knows(join(&self.shape, key));
        let entry = self.entries.iter_mut().find(|entry| entry.name == key)?;
        entry.taken = true;
        Some(Field {
            notes: self.notes,
            place: Place { line: entry.line, key: join(&self.place.key, &bare(entry.name)) },
            shape: join(&self.shape, key),
            value: entry.value.get_ref(),
        })
    }

    /// Every entry, in the order of the file, for tables whose keys are names of the user's.
    pub fn take_named(&mut self) -> Vec<(At<String>, Field<'d>)> {
        let (notes, place, shape) = (self.notes, &self.place, &self.shape);
        let field = |entry: &mut Entry<'d>| {
            entry.taken = true;
            let key = join(&place.key, &bare(entry.name));
            let place = Place { line: entry.line, key };
            let shape = join(shape, "*");
            let name = At { value: entry.name.to_owned(), place: place.clone() };
            (name, Field { notes, place, shape, value: entry.value.get_ref() })
        };
        self.entries.iter_mut().filter(|entry| !entry.taken).map(field).collect()
    }

    /// Complains about every key nobody asked for.
    pub fn finish(self) -> Place {
        for entry in self.entries.iter().filter(|entry| !entry.taken) {
            let key = join(&self.place.key, &bare(entry.name));
            let (near, remedy) = suggestion(entry.name, &self.asked, "key");
            if let Some(near) = near {
                self.notes.speaks_for(&join(&self.place.key, near));
            }
            self.notes.mistake(&Place { line: entry.line, key }, "is not a known key", remedy);
        }
        self.place
    }
}

impl<'d> Field<'d> {
    pub fn notes(&self) -> &'d Notes {
        self.notes
    }

    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    pub fn is_text(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub fn is_zero(&self) -> bool {
        match self.value {
            DeValue::Integer(number) => {
                u64::from_str_radix(number.as_str(), number.radix()) == Ok(0)
            }
            _ => false,
        }
    }

    pub fn as_boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    pub fn at<T>(self, value: T) -> At<T> {
        At { value, place: self.place }
    }

    /// Notes a mistake about this value as written.
    pub fn wrong(&self, remedy: impl Into<String>) {
        self.notes.mistake(&self.place, format!("found {}", found(self.value)), remedy);
    }

    /// Notes a mistake without showing the value.
    pub fn wrong_secret(&self, message: &str, remedy: impl Into<String>) {
        self.notes.mistake(&self.place, message, remedy);
    }

    pub fn text(self, example: &str) -> Option<At<String>> {
        match self.value {
            DeValue::String(text) => Some(text.clone().into_owned()).map(|text| self.at(text)),
            _ => {
                self.wrong(format!("write a string such as {example:?}"));
                None
            }
        }
    }

    /// A string that `read` understands; its error says what is allowed.
    pub fn parsed<T, E: std::fmt::Display>(
        self,
        example: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<At<T>> {
        let DeValue::String(text) = self.value else {
            self.wrong(format!("write a string such as {example:?}"));
            return None;
        };
        match read(text) {
            Ok(value) => Some(self.at(value)),
            Err(allowed) => {
                self.wrong(allowed.to_string());
                None
            }
        }
    }

    /// One of a few words.
    pub fn choice<T: Clone>(self, choices: &[(&'static str, T)]) -> Option<At<T>> {
        let words: Vec<&'static str> = choices.iter().map(|(word, _)| *word).collect();
        let allowed = words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        self.parsed(words.first().copied().unwrap_or(""), |text| {
            choices
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| match super::problem::nearest(text, words.iter().copied()) {
                    Some(near) => format!("allowed are {allowed}; did you mean {near:?}?"),
                    None => format!("allowed are {allowed}"),
                })
        })
    }

    pub fn boolean(self) -> Option<At<bool>> {
        match self.value {
            DeValue::Boolean(value) => Some(self.at(*value)),
            _ => {
                self.wrong("write true or false, without quotes");
                None
            }
        }
    }

    pub fn integer(self, allowed: RangeInclusive<u64>) -> Option<At<u64>> {
        let value = match self.value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match value.filter(|value| allowed.contains(value)) {
            Some(value) => Some(self.at(value)),
            None => {
                let (least, most) = (allowed.start(), allowed.end());
                self.wrong(format!("write a whole number from {least} to {most}, without quotes"));
                None
            }
        }
    }

    pub fn count(self, allowed: RangeInclusive<u32>) -> Option<At<u32>> {
        let most = *allowed.end();
        let number = self.integer(u64::from(*allowed.start())..=u64::from(most))?;
        // The range was checked, so the conversion is exact.
        Some(number.map(|n| u32::try_from(n).unwrap_or(most)))
    }

    /// A number with or without a fraction.
    pub fn fraction(self, allowed: RangeInclusive<f64>) -> Option<At<f64>> {
        let value: Option<f64> = match self.value {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        match value.filter(|value| allowed.contains(value)) {
            Some(value) => Some(self.at(value)),
            None => {
                let (least, most) = (allowed.start(), allowed.end());
                self.wrong(format!("write a number from {least} to {most}"));
                None
            }
        }
    }

    pub fn duration(self, allowed: RangeInclusive<Duration>) -> Option<At<Duration>> {
        self.parsed("5s", |text| in_range(units::duration(text)?, &allowed))
    }

    /// A duration, or `"off"`.
    pub fn duration_or_off(
        self,
        allowed: RangeInclusive<Duration>,
    ) -> Option<At<Option<Duration>>> {
        self.parsed("5s", |text| match text {
            "off" => Ok(None),
            _ => match units::duration(text) {
                Ok(value) => in_range(value, &allowed)
                    .map(Some)
                    .map_err(|remedy| format!("{remedy}, or \"off\" to turn it off")),
                Err(remedy) => Err(format!("{remedy}, or \"off\"")),
            },
        })
    }

    /// `"off"`, where a table could stand.
    pub fn off<T>(self, table: &str) -> Option<At<Option<T>>> {
        self.parsed("off", |text| match text {
            "off" => Ok(None),
            _ => Err(format!("write a table such as {table}, or \"off\"")),
        })
    }

    pub fn size(self, allowed: RangeInclusive<u64>) -> Option<At<u64>> {
        self.parsed("64KiB", |text| {
            let value = units::size(text)?;
            if allowed.contains(&value) {
                return Ok(value);
            }
            let (least, most) = (*allowed.start(), *allowed.end());
            let (least, most) = (units::show_size(least), units::show_size(most));
            Err(format!("allowed is {least} to {most}"))
        })
    }

    /// A table with known keys.
    pub fn section(self, example: &str) -> Option<Section<'d>> {
        match self.value {
            DeValue::Table(table) => Some(Section::new(self.notes, self.place, self.shape, table)),
            _ => {
                self.wrong(format!("write a table such as {example}"));
                None
            }
        }
    }

    /// The elements of an array, each with its own line.
    pub fn items(self, example: &str) -> Option<Vec<Field<'d>>> {
        let DeValue::Array(items) = self.value else {
            self.wrong(format!("write a list such as {example}"));
            return None;
        };
        let item = |(index, value): (usize, &'d Spanned<DeValue<'d>>)| Field {
            notes: self.notes,
            place: Place {
                line: self.notes.line(value.span().start),
                key: format!("{}[{index}]", self.place.key),
            },
            shape: format!("{}[]", self.shape),
            value: value.get_ref(),
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A list of strings that `read` understands. What cannot be read is noted and left out.
    pub fn list<T, E: std::fmt::Display>(
        self,
        example: &str,
        mut read: impl FnMut(&str) -> Result<T, E>,
    ) -> Option<At<Vec<At<T>>>> {
        let place = self.place.clone();
        let items = self.items(&format!("[{example:?}]"))?;
        let value = items.into_iter().filter_map(|item| item.parsed(example, &mut read)).collect();
        Some(At { value, place })
    }
}

fn in_range(value: Duration, allowed: &RangeInclusive<Duration>) -> Result<Duration, String> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    let (least, most) = (*allowed.start(), *allowed.end());
    let (least, most) = (units::show_duration(least), units::show_duration(most));
    Err(format!("allowed is {least:?} to {most:?}"))
}

fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => format!("{value}"),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A key as it must be written: quoted unless it is bare.
fn bare(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}
