//! What of jq's library a plugin has. Left out are `env`, `input`, `debug`, `stderr` and `halt`, which
//! reach outside; `now` is the time at which the event was accepted, the same at every run.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use branchline_plugin::text::escape_html;
use branchline_plugin::{form, host};
use jaq_core::data::JustLut;
use jaq_core::native::{self, Fun, bome, v};
use jaq_core::path::Opt;
use jaq_core::{Cv, Exn, RunPtr, ValT as _, ValXs};
use jaq_json::{Error, Num, Rc, Val};
use jaq_std::ValT as _;

use crate::{expressions, time};

pub type Data = JustLut<Val>;
/// A function of the language: its name, its arguments, and what it does.
pub type Native = native::Filter<RunPtr<Data>>;
/// A value, or jq's own error.
type ValR<T> = Result<T, Error>;

/// All functions that are written in Rust.
pub fn functions() -> impl Iterator<Item = Fun<Data>> {
    let library = jaq_core::funs().chain(jaq_std::base_funs()).chain(jaq_json::funs());
    let ours =
        values().into_iter().chain(formats()).chain(times()).chain(mathematics()).chain(expressions::functions());
    library.filter(|(name, _, _)| *name != "halt").chain(ours.map(native::run::<Data>))
}

fn values() -> Vec<Native> {
    vec![
        ("null", v(0), |_| bome(Ok(Val::Null))),
        ("true", v(0), |_| bome(Ok(Val::Bool(true)))),
        ("false", v(0), |_| bome(Ok(Val::Bool(false)))),
        ("not", v(0), |cv| bome(Ok(Val::Bool(!cv.1.as_bool())))),
        ("type", v(0), |cv| bome(Ok(Val::from(kind(&cv.1).to_owned())))),
        ("tonumber", v(0), |cv| bome(to_number(&cv.1))),
        ("toboolean", v(0), |cv| {
            bome(match (&cv.1, text(&cv.1)) {
                (Val::Bool(_), _) => Ok(cv.1.clone()),
                (_, Ok("true")) => Ok(Val::Bool(true)),
                (_, Ok("false")) => Ok(Val::Bool(false)),
                (_, _) => Err(Error::str("cannot be made a boolean")),
            })
        }),
        ("nan", v(0), |_| bome(Ok(Val::from(f64::NAN)))),
        ("infinite", v(0), |_| bome(Ok(Val::from(f64::INFINITY)))),
        ("isnan", v(0), |cv| bome(number(&cv.1).map(|x| Val::from(x.is_nan())))),
        ("isinfinite", v(0), |cv| bome(number(&cv.1).map(|x| Val::from(x.is_infinite())))),
        ("isnormal", v(0), |cv| bome(number(&cv.1).map(|x| Val::from(x.is_normal())))),
        ("delpaths", v(1), |mut cv| {
            let paths = cv.0.pop_var();
            bome(delete_all(cv.1, paths))
        }),
    ]
}

fn formats() -> Vec<Native> {
    vec![
        ("escape_html", v(0), |cv| bome(map_text(&cv.1, |text| Ok(escape_html(text))))),
        ("encode_uri", v(0), |cv| bome(map_text(&cv.1, |text| Ok(form::percent_encode(text))))),
        ("decode_uri", v(0), |cv| bome(map_text(&cv.1, |text| Ok(form::percent_decode(text))))),
        ("encode_base64", v(0), |cv| bome(map_text(&cv.1, |text| Ok(STANDARD.encode(text))))),
        ("decode_base64", v(0), |cv| {
            bome(map_text(&cv.1, |text| {
                let bytes = STANDARD.decode(text).map_err(|_| Error::str("not base64"))?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }))
        }),
    ]
}

fn times() -> Vec<Native> {
    vec![
        ("now", v(0), |_| bome(Ok(Val::from(host::now_ms() as f64 / 1000.0)))),
        ("todateiso8601", v(0), |cv| {
            let seconds = cv.1.as_f64().ok_or_else(|| Error::typ(cv.1.clone(), "number"));
            bome(seconds.and_then(|seconds| {
                time::write(seconds).map(Val::from).ok_or_else(|| Error::str("not a time of the years 0 to 9999"))
            }))
        }),
        ("fromdateiso8601", v(0), |cv| {
            bome(text(&cv.1).and_then(|text| {
                let seconds = time::read(text).ok_or_else(|| Error::str("not a time such as 2025-01-15T10:30:00Z"))?;
                // A whole number where it is one, so that it is written without a fraction.
                let whole = seconds as i64;
                Ok(if whole as f64 == seconds { Val::Num(Num::from_integral(whole)) } else { Val::from(seconds) })
            }))
        }),
    ]
}

fn mathematics() -> Vec<Native> {
    vec![
        ("exp", v(0), |cv| of_one(&cv.1, f64::exp)),
        ("exp10", v(0), |cv| of_one(&cv.1, |x| 10f64.powf(x))),
        ("exp2", v(0), |cv| of_one(&cv.1, f64::exp2)),
        ("fabs", v(0), |cv| of_one(&cv.1, f64::abs)),
        ("log", v(0), |cv| of_one(&cv.1, f64::ln)),
        ("log10", v(0), |cv| of_one(&cv.1, f64::log10)),
        ("log2", v(0), |cv| of_one(&cv.1, f64::log2)),
        ("sqrt", v(0), |cv| of_one(&cv.1, f64::sqrt)),
        ("trunc", v(0), |cv| of_one(&cv.1, f64::trunc)),
        ("fmax", v(2), |cv| of_two(cv, f64::max)),
        ("fmin", v(2), |cv| of_two(cv, f64::min)),
        ("fmod", v(2), |cv| of_two(cv, |x, y| x % y)),
        ("pow", v(2), |cv| of_two(cv, f64::powf)),
    ]
}

/// The text of a value that is one.
pub fn text(value: &Val) -> ValR<&str> {
    let bytes = value.as_utf8_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok());
    bytes.ok_or_else(|| Error::typ(value.clone(), "string"))
}

fn kind(value: &Val) -> &'static str {
    match value {
        Val::Null => "null",
        Val::Bool(_) => "boolean",
        Val::Num(_) => "number",
        Val::BStr(_) | Val::TStr(_) => "string",
        Val::Arr(_) => "array",
        Val::Obj(_) => "object",
    }
}

/// A number of JSON in a text; not `NaN`, nor a number with spaces around it.
fn to_number(value: &Val) -> ValR<Val> {
    if let Val::Num(_) = value {
        return Ok(value.clone());
    }
    let digits = text(value)?;
    let parsed = jaq_json::read::parse_single_num(digits.as_bytes());
    let parsed = parsed.filter(|_| digits.starts_with(|first: char| first == '-' || first.is_ascii_digit()));
    parsed.map(Val::Num).ok_or_else(|| Error::str("cannot be made a number"))
}

/// The later paths go first, so that they still mean the same when the earlier ones are deleted.
fn delete_all(value: Val, paths: Val) -> ValR<Val> {
    let not_paths = |value: Val| Error::typ(value, "array");
    let mut paths = paths.into_seq::<Vec<Val>>().map_err(not_paths)?;
    paths.sort();
    paths.into_iter().rev().try_fold(value, |value, path| {
        let path = path.into_seq::<Vec<Val>>().map_err(not_paths)?;
        delete(value, &path)
    })
}

/// Unlike the engine's own way, this leaves the other members of an object in their order.
fn delete(mut value: Val, path: &[Val]) -> ValR<Val> {
    let Some((step, rest)) = path.split_first() else {
        return Ok(Val::Null);
    };
    if let (Val::Obj(members), []) = (&mut value, rest) {
        Rc::make_mut(members).shift_remove(step);
        return Ok(value);
    }
    // What is not there would be made, to hold the hole.
    if matches!(value, Val::Null) || value.clone().index(step)? == Val::Null {
        return Ok(value);
    }
    let deleted = value.map_index(step, Opt::Optional, |inner| {
        (!rest.is_empty()).then(|| delete(inner, rest).map_err(Exn::from)).into_iter()
    });
    deleted.map_err(|fault| fault.get_err().unwrap_or_else(|_| Error::str("cannot be deleted")))
}

fn map_text(value: &Val, map: impl Fn(&str) -> ValR<String>) -> ValR<Val> {
    text(value).and_then(map).map(Val::from)
}

fn number(value: &Val) -> ValR<f64> {
    value.as_f64().ok_or_else(|| Error::typ(value.clone(), "number"))
}

fn of_one<'a>(value: &Val, function: fn(f64) -> f64) -> ValXs<'a, Val> {
    bome(number(value).map(|x| Val::from(function(x))))
}

fn of_two<'a>(mut cv: Cv<'a, Data>, function: fn(f64, f64) -> f64) -> ValXs<'a, Val> {
    let second = cv.0.pop_var();
    let first = cv.0.pop_var();
    bome(number(&first).and_then(|x| Ok(Val::from(function(x, number(&second)?)))))
}
