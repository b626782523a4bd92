//! A cadence on the wire and in the database.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::error::CadenceError;
use super::slots::{Cadence, Rhythm, TimeOfDay};

const HOUR: &str = "hour_utc";
const MINUTE: &str = "minute_utc";
const DAY: &str = "day_of_week";
const ZONE: &str = "time_zone";

const AN_HOUR: &str = "a whole number from 0 to 23";
const A_MINUTE: &str = "a whole number from 0 to 59";
const A_DAY: &str = "`mon`, `tue`, `wed`, `thu`, `fri`, `sat` or `sun`";

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

impl Cadence {
    /// Reads `{type, hour_utc, minute_utc, day_of_week, time_zone}`. A null counts as absent, and
    /// an absent `minute_utc` is 0. With a `time_zone`, hour and minute are those of its clocks.
    ///
    /// # Errors
    /// [`CadenceError`] names the first key that is missing, out of range or not for the rhythm.
    pub fn parse(document: &Value) -> Result<Self, CadenceError> {
        let keys = Keys(document.as_object().ok_or(CadenceError::NotObject)?);
        keys.known()?;
        let rhythm = keys.get("type");
        match rhythm.and_then(Value::as_str) {
            Some("manual") => {
                keys.refuse("manual", &[HOUR, MINUTE, DAY, ZONE])?;
                Ok(Self::new(Rhythm::Manual, TimeZone::UTC))
            }
            Some("hourly") => {
                keys.refuse("hourly", &[HOUR, DAY, ZONE])?;
                Ok(Self::new(Rhythm::Hourly { minute: keys.minute()? }, TimeZone::UTC))
            }
            Some("daily") => {
                keys.refuse("daily", &[DAY])?;
                Ok(Self::new(Rhythm::Daily(keys.time("daily")?), keys.zone()?))
            }
            Some("weekdays") => {
                keys.refuse("weekdays", &[DAY])?;
                Ok(Self::new(Rhythm::Weekdays(keys.time("weekdays")?), keys.zone()?))
            }
            Some("weekly") => {
                let (at, day) = (keys.time("weekly")?, keys.day("weekly")?);
                Ok(Self::new(Rhythm::Weekly { day, at }, keys.zone()?))
            }
            Some(_) | None => {
                let found = rhythm.map_or_else(|| "missing".to_owned(), shown);
                Err(CadenceError::UnknownType { found })
            }
        }
    }

    /// The cadence as [`Cadence::parse`] reads it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let timed = |name: &str, at: TimeOfDay| {
            let mut document = json!({"type": name, HOUR: at.hour, MINUTE: at.minute});
            if let Some(zone) = self.zone().iana_name().filter(|_| *self.zone() != TimeZone::UTC) {
                document[ZONE] = zone.into();
            }
            document
        };
        match self.rhythm() {
            Rhythm::Manual => json!({"type": "manual"}),
            Rhythm::Hourly { minute } => json!({"type": "hourly", MINUTE: minute}),
            Rhythm::Daily(at) => timed("daily", at),
            Rhythm::Weekdays(at) => timed("weekdays", at),
            Rhythm::Weekly { day, at } => {
                let mut document = timed("weekly", at);
                let word = DAYS.iter().find(|(_, other)| *other == day).map(|(word, _)| *word);
                document[DAY] = word.into();
                document
            }
        }
    }
}

/// The keys of a cadence as they were written.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn known(&self) -> Result<(), CadenceError> {
        let unknown =
            self.0.keys().find(|key| !["type", HOUR, MINUTE, DAY, ZONE].contains(&key.as_str()));
        unknown.map_or(Ok(()), |key| Err(CadenceError::UnknownKey { key: key.clone() }))
    }

    fn refuse(&self, rhythm: &'static str, keys: &[&'static str]) -> Result<(), CadenceError> {
        let given = keys.iter().find(|key| self.get(key).is_some());
        given.map_or(Ok(()), |key| Err(CadenceError::NotFor { rhythm, key }))
    }

    fn time(&self, rhythm: &'static str) -> Result<TimeOfDay, CadenceError> {
        let missing = CadenceError::Missing { rhythm, key: HOUR, expected: AN_HOUR };
        let hour = self.number(HOUR, 23, AN_HOUR)?.ok_or(missing)?;
        Ok(TimeOfDay { hour, minute: self.minute()? })
    }

    fn minute(&self) -> Result<i8, CadenceError> {
        Ok(self.number(MINUTE, 59, A_MINUTE)?.unwrap_or(0))
    }

    fn number(
        &self,
        key: &'static str,
        most: i8,
        expected: &'static str,
    ) -> Result<Option<i8>, CadenceError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| i8::try_from(number).ok());
        match number.filter(|number| *number <= most) {
            Some(number) => Ok(Some(number)),
            None => Err(CadenceError::Unfit { key, expected, found: shown(value) }),
        }
    }

    fn day(&self, rhythm: &'static str) -> Result<Weekday, CadenceError> {
        let missing = CadenceError::Missing { rhythm, key: DAY, expected: A_DAY };
        let value = self.get(DAY).ok_or(missing)?;
        let word = value.as_str().map(str::to_ascii_lowercase);
        let day = DAYS.iter().find(|(day, _)| word.as_deref() == Some(*day));
        let unfit = || CadenceError::Unfit { key: DAY, expected: A_DAY, found: shown(value) };
        day.map(|(_, day)| *day).ok_or_else(unfit)
    }

    fn zone(&self) -> Result<TimeZone, CadenceError> {
        let Some(value) = self.get(ZONE) else { return Ok(TimeZone::UTC) };
        let zone = value.as_str().and_then(|name| TimeZone::get(name).ok());
        let zone = zone.filter(|zone| zone.iana_name().is_some());
        zone.ok_or_else(|| CadenceError::UnknownZone {
            name: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        })
    }
}

fn shown(value: &Value) -> String {
    format!("`{value}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cadence_is_kept_as_it_was_written() {
        for document in [
            json!({"type": "manual"}),
            json!({"type": "hourly", "minute_utc": 5}),
            json!({"type": "daily", "hour_utc": 0, "minute_utc": 59}),
            json!({"type": "weekdays", "hour_utc": 23, "minute_utc": 0, "time_zone": "Europe/Berlin"}),
            json!({"type": "weekly", "hour_utc": 9, "minute_utc": 0, "day_of_week": "sun"}),
        ] {
            assert_eq!(Cadence::parse(&document).unwrap().to_json(), document);
        }
        let loose =
            json!({"type": "weekly", "hour_utc": 9, "day_of_week": "Fri", "time_zone": null});
        let strict =
            json!({"type": "weekly", "hour_utc": 9, "minute_utc": 0, "day_of_week": "fri"});
        assert_eq!(Cadence::parse(&loose).unwrap().to_json(), strict);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (document, expected) in [
            (json!("daily"), "the cadence must be an object"),
            (json!({}), "it is missing"),
            (
                json!({"type": "yearly"}),
                "`hourly`, `daily`, `weekdays` or `weekly`; it is `\"yearly\"`",
            ),
            (
                json!({"type": "daily"}),
                "a `daily` cadence needs `hour_utc`: a whole number from 0 to 23",
            ),
            (json!({"type": "weekdays"}), "a `weekdays` cadence needs `hour_utc`"),
            (
                json!({"type": "weekly", "day_of_week": "mon"}),
                "a `weekly` cadence needs `hour_utc`",
            ),
            (
                json!({"type": "weekly", "hour_utc": 1}),
                "a `weekly` cadence needs `day_of_week`: `mon`",
            ),
            (json!({"type": "manual", "hour_utc": 1}), "a `manual` cadence takes no `hour_utc`"),
            (json!({"type": "manual", "minute_utc": 1}), "takes no `minute_utc`"),
            (json!({"type": "hourly", "hour_utc": 1}), "takes no `hour_utc`"),
            (json!({"type": "hourly", "time_zone": "Asia/Tokyo"}), "takes no `time_zone`"),
            (
                json!({"type": "daily", "hour_utc": 1, "day_of_week": "mon"}),
                "takes no `day_of_week`",
            ),
            (
                json!({"type": "daily", "hour_utc": 24}),
                "`hour_utc` must be a whole number from 0 to 23; it is `24`",
            ),
            (json!({"type": "daily", "hour_utc": -1}), "it is `-1`"),
            (json!({"type": "daily", "hour_utc": 1.5}), "it is `1.5`"),
            (json!({"type": "daily", "hour_utc": "9"}), "it is `\"9\"`"),
            (json!({"type": "hourly", "minute_utc": 60}), "from 0 to 59; it is `60`"),
            (
                json!({"type": "weekly", "hour_utc": 1, "day_of_week": "monday"}),
                "or `sun`; it is `\"monday\"`",
            ),
            (
                json!({"type": "daily", "hour_utc": 1, "time_zone": "Berlin"}),
                "the time zone `Berlin` is not known",
            ),
            (
                json!({"type": "daily", "hour_utc": 1, "time_zone": 1}),
                "the time zone `1` is not known",
            ),
            (json!({"type": "manual", "cron": "* * *"}), "the cadence's key `cron` is not known"),
        ] {
            let error = Cadence::parse(&document).unwrap_err().to_string();
            assert!(error.contains(expected), "{document}\n{error}\n{expected}");
        }
    }
}
