//! CSV: one sample a line, cells by number or by the header's names.

use super::{Plan, Scalar};
use crate::signal::config::{DecoderConfig, FieldConfig};
use crate::signal::error::{Error, Position, quoted};
use crate::signal::path::{Path, Slot};
use crate::signal::sample::Sample;

/// Most cells of a line: more is a file that is no CSV.
const MAX_CELLS: usize = 1024;

/// Which cells are wanted.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    delimiter: u8,
    header: bool,
    wanted: Vec<(Column, Slot)>,
}

#[derive(Debug, Clone)]
enum Column {
    Number(usize),
    Name(String),
}

impl Columns {
    pub(super) fn new(settings: &DecoderConfig, fields: &[FieldConfig]) -> Result<Self, Error> {
        let delimiter = u8::try_from(settings.delimiter)
            .ok()
            .filter(|&byte| byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"\"\r\n.+-".contains(&byte))
            .ok_or_else(|| {
                let problem = "expected one ASCII character that stands in no number, such as , ; | or a tab";
                Error::setting("decoder.delimiter", problem)
            })?;
        let column = |key: &str, path: &Path| match path.column() {
            Some(number) if number < MAX_CELLS => Ok(Column::Number(number)),
            None if settings.header && !path.as_str().is_empty() => Ok(Column::Name(path.as_str().to_owned())),
            _ => {
                let problem = "a CSV path is a column number from 0 to 1023 or, with `decoder.header`, a column's name";
                Err(Error::setting(key, problem))
            }
        };
        let mut wanted = Vec::new();
        if let Some(time) = &settings.time {
            wanted.push((column("decoder.time", time)?, Slot::Time));
        }
        if let Some(id) = &settings.id {
            wanted.push((column("decoder.id", id)?, Slot::Id));
        }
        let taken = |wanted: &[(Column, Slot)], number: usize| {
            wanted.iter().any(|(column, _)| matches!(column, Column::Number(other) if *other == number))
        };
        let mut free = 0;
        for (at, field) in fields.iter().enumerate() {
            let column = match &field.path {
                Some(path) => column(&format!("fields[{at}].path"), path)?,
                None if settings.header => Column::Name(field.name.clone()),
                None => {
                    while taken(&wanted, free) {
                        free += 1;
                    }
                    Column::Number(free)
                }
            };
            wanted.push((column, Slot::Field(at)));
        }
        Ok(Self { delimiter, header: settings.header, wanted })
    }
}

pub(super) fn decode(plan: &Plan, columns: &Columns, payload: &[u8], out: &mut Vec<Sample>) -> Result<(), Error> {
    let start = out.len();
    let text = std::str::from_utf8(payload).map_err(|error| {
        let at = Position::Offset(error.valid_up_to());
        malformed(at, "not UTF-8", &payload[error.valid_up_to()..])
    })?;
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    // Cell numbers of the wanted columns, in the order of `columns.wanted`.
    let numbers: Vec<usize> = if columns.header {
        let (at, line) = lines.next().ok_or_else(|| nothing("a header"))?;
        let names: Vec<&str> = cells(line, at, columns.delimiter)?.into_iter().map(|cell| cell.text).collect();
        columns.wanted.iter().map(|(column, _)| number(column, &names, at)).collect::<Result<_, Error>>()?
    } else {
        let number = |column: &Column| match column {
            Column::Number(number) => *number,
            Column::Name(_) => unreachable!("names are for payloads with a header"),
        };
        columns.wanted.iter().map(|(column, _)| number(column)).collect()
    };
    let mut lines = lines.peekable();
    if lines.peek().is_none() && !columns.header {
        return Err(nothing("a line of cells"));
    }
    for (at, line) in lines {
        let cells = cells(line, at, columns.delimiter)?;
        let mut sample = plan.empty();
        for (&number, &(_, slot)) in numbers.iter().zip(&columns.wanted) {
            let Some(cell) = cells.get(number) else {
                let mut fault = plan.fault(slot, format!("a line of {} columns", cells.len()));
                fault.expected = format!("{} in column {number}, counted from 0", fault.expected);
                return Err(fault.at(Position::Line { line: at + 1, column: line.len() + 1 }));
            };
            let scalar = if cell.text.is_empty() { Scalar::Null } else { Scalar::Text(cell.text) };
            let place = Position::Line { line: at + 1, column: cell.column };
            // A sender's counter is a number in every other format.
            let scalar = match (slot, cell.text.parse()) {
                (Slot::Id, Ok(counter)) => Scalar::Unsigned(counter),
                _ => scalar,
            };
            plan.put(&mut sample, slot, scalar).map_err(|fault| fault.at(place))?;
        }
        plan.push(out, start, sample)?;
    }
    Ok(())
}

fn number(column: &Column, names: &[&str], line: usize) -> Result<usize, Error> {
    match column {
        Column::Number(number) => Ok(*number),
        Column::Name(name) => names.iter().position(|known| known == name).ok_or_else(|| Error::Unexpected {
            path: name.clone(),
            at: Position::Line { line: line + 1, column: 1 },
            expected: "a column of that name in the header".to_owned(),
            found: quoted(&names.join(",")),
        }),
    }
}

fn nothing(expected: &str) -> Error {
    malformed(Position::Line { line: 1, column: 1 }, &format!("expected {expected}, found nothing"), b"")
}

fn malformed(at: Position, problem: &str, near: &[u8]) -> Error {
    Error::Malformed { format: "CSV", at, problem: problem.to_owned(), excerpt: crate::signal::error::excerpt(near, 0) }
}

struct Cell<'a> {
    text: &'a str,
    /// Of its first byte, from 1.
    column: usize,
}

/// The cells of a line, trimmed. A quoted cell may hold the delimiter, not a line break or an escaped quote: neither
/// stands in a number, a time or an id.
fn cells(line: &str, at: usize, delimiter: u8) -> Result<Vec<Cell<'_>>, Error> {
    let bytes = line.as_bytes();
    let mut cells = Vec::new();
    let mut start = 0;
    loop {
        let lead = bytes[start..].iter().take_while(|&&byte| byte == b' ').count();
        let (text, end) = if bytes.get(start + lead) == Some(&b'"') {
            let open = start + lead + 1;
            let place = Position::Line { line: at + 1, column: open };
            let close =
                line[open..].find('"').ok_or_else(|| malformed(place, "a quote without end", &bytes[open - 1..]))?;
            let after = open + close + 1;
            let gap = bytes[after..].iter().take_while(|&&byte| byte == b' ').count();
            if !matches!(bytes.get(after + gap), None | Some(&b'\r')) && bytes[after + gap] != delimiter {
                return Err(malformed(place, "something after a closing quote", &bytes[open - 1..]));
            }
            (&line[open..open + close], after + gap)
        } else {
            let end =
                bytes[start..].iter().position(|&byte| byte == delimiter).map_or(bytes.len(), |length| start + length);
            (line[start..end].trim(), end)
        };
        if cells.len() == MAX_CELLS {
            let place = Position::Line { line: at + 1, column: start + 1 };
            return Err(malformed(place, "more than 1024 columns", &bytes[start..]));
        }
        cells.push(Cell { text, column: start + lead + 1 });
        if bytes.get(end) != Some(&delimiter) {
            return Ok(cells);
        }
        start = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use crate::signal::decode::tests::{decode, decoder};
    use crate::signal::sample::Id;

    #[test]
    fn lines_of_a_machine_are_samples() {
        let decoder =
            decoder("fields=[{name='value'}]\n[decoder]\nformat='csv'\ntime='0'\ntime_format='%Y-%m-%d %H:%M:%S'");
        let samples = decode(&decoder, "2013-12-02 21:15:00,73.96732207\r\n\n2013-12-02 21:20:00, 74.9\n").unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[0].values[0], 73.967_322_07);
        assert_eq!(samples[1].time_ms, Some(1_386_019_200_000));
    }

    #[test]
    fn a_header_names_the_columns_in_any_order() {
        let decoder = decoder(
            "fields=[{name='temp'},{name='p',path='pressure'}]\n[decoder]\nformat='csv'\nheader=true\ndelimiter=';'\nid='n'",
        );
        let samples = decode(&decoder, "n;pressure;temp\n7;1013;\"21.5\"\n8;;22").unwrap();
        assert_eq!(samples[0].values.as_slice(), [21.5, 1013.0]);
        assert_eq!(samples[0].id, Some(Id::Number(7)));
        assert_eq!(samples[1].missing, 0b10);
        let error = decode(&decoder, "n;temp\n1;2").unwrap_err().to_string();
        assert!(error.contains("`pressure`") && error.contains("n,temp"), "{error}");
        assert_eq!(decode(&decoder, "n;pressure;temp\n").unwrap().len(), 0);
    }

    #[test]
    fn a_cell_that_is_wrong_or_absent_is_named_by_line_and_column() {
        let decoder = decoder("fields=[{name='a'},{name='b'}]\n[decoder]\nformat='csv'");
        assert_eq!(
            decode(&decoder, "1,2\n3, x4").unwrap_err().to_string(),
            "failed to read `b` at line 2, column 4: expected a number, found the text \"x4\""
        );
        let error = decode(&decoder, "1\n").unwrap_err().to_string();
        assert!(error.contains("in column 1") && error.contains("a line of 1 columns"), "{error}");
        assert!(decode(&decoder, "\"1,2").unwrap_err().to_string().contains("a quote without end"));
        assert!(decode(&decoder, "\"1\"2,3").is_err());
        assert!(decode(&decoder, ",".repeat(5000)).is_err());
    }

    #[test]
    fn names_without_a_header_and_odd_delimiters_are_refused_at_start() {
        for wrong in [
            "fields=[{name='a',path='temp'}]\n[decoder]\nformat='csv'",
            "[decoder]\nformat='csv'\ndelimiter='.'",
            "[decoder]\nformat='csv'\ndelimiter='é'",
            "[decoder]\nformat='csv'\ntime='5000'",
        ] {
            assert!(crate::signal::Decoder::new(&toml::from_str(wrong).unwrap()).is_err(), "{wrong}");
        }
    }
}
