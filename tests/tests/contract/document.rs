//! `docs/admin-api.yaml`: parsing it, checking its `x-status`, and deriving the variant for one form of the API.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use azaion_tests::dev_api::{Casing, RoleForm};
use azaion_tests::programs::{output, workspace};
use serde_json::{Map, Value};

use crate::combinations::Combination;

/// The key that says how certain a statement is.
const STATUS: &str = "x-status";

/// The only request that is spelled in the server's casing. Unknown properties of a request are ignored.
const REQUEST: &str = "RefreshRequest";

pub(crate) fn path() -> PathBuf {
    workspace().join("docs/admin-api.yaml")
}

/// Reads the document unchanged.
pub(crate) fn read() -> anyhow::Result<Value> {
    let convert = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let text = output(Command::new("python3").args(["-c", convert]).arg(path()))?;
    Ok(serde_json::from_str(&text)?)
}

/// Returns an object's entries; none for other values.
pub(crate) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Returns all operations, each with its method and path.
pub(crate) fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    let of_path = |(path, methods): (&String, _)| {
        let path = path.clone();
        entries(methods).map(move |(method, operation)| (format!("{method} {path}"), operation))
    };
    entries(&document["paths"]).flat_map(of_path)
}

/// Returns the part of the document that a reference points to, or the value itself.
pub(crate) fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
    pointer.map_or(value, |pointer| document.pointer(pointer).expect("the reference can be resolved"))
}

/// Returns the path of every operation, request body, response and schema without `x-status`; references are resolved.
pub(crate) fn without_status(document: &Value) -> Vec<String> {
    let mut missing = Vec::new();
    let mut check = |at: String, value: &Value| {
        if !["known", "likely", "open"].contains(&resolved(document, value)[STATUS].as_str().unwrap_or_default()) {
            missing.push(at);
        }
    };
    for (at, operation) in operations(document) {
        check(at.clone(), operation);
        if let Some(body) = operation.get("requestBody") {
            check(format!("{at} requestBody"), body);
        }
        for (status, response) in entries(&operation["responses"]) {
            check(format!("{at} {status}"), response);
        }
    }
    for (kind, members) in entries(&document["components"]).filter(|(kind, _)| *kind != "securitySchemes") {
        for (name, member) in entries(members).filter(|_| kind == "responses" || kind == "schemas") {
            check(format!("{kind} {name}"), member);
        }
    }
    schemas(document, "", &mut check);
    missing
}

/// Calls `check` for each schema with its path in the document.
fn schemas(value: &Value, at: &str, check: &mut impl FnMut(String, &Value)) {
    for (key, inner) in entries(value) {
        let at = format!("{at}/{key}");
        if key == "schema" {
            check(at.clone(), inner);
        }
        schemas(inner, &at, check);
    }
    for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
        schemas(inner, &format!("{at}/{index}"), check);
    }
}

/// Returns the path of every `x-status` that is none of the three values.
pub(crate) fn odd_statuses(value: &Value, at: &str) -> Vec<String> {
    let inner = |(key, inner): (&String, &Value)| {
        let at = format!("{at}/{key}");
        match inner.as_str() {
            Some("known" | "likely" | "open") if key == STATUS => Vec::new(),
            _ if key == STATUS => vec![at],
            _ => odd_statuses(inner, &at),
        }
    };
    entries(value).flat_map(inner).collect()
}

/// Returns the document for a server of this form: only its routes, in its casings.
pub(crate) fn variant(document: &Value, of: Combination) -> anyhow::Result<Value> {
    let mut document = document.clone();
    let generation = format!("{:?}", of.generation);
    let is_there = |operation: &Value| {
        let generations = operation["x-generations"].as_array();
        let is_of_generation = generations.is_none_or(|all| all.iter().any(|one| *one == generation));
        is_of_generation
            && match operation["operationId"].as_str() {
                Some("setPassword") => of.has_password_route,
                Some("deleteUser") => of.has_delete_route,
                _ => true,
            }
    };
    let paths = document["paths"].as_object_mut().context("paths")?;
    for methods in paths.values_mut() {
        methods.as_object_mut().context("methods")?.retain(|_, operation| is_there(operation));
    }
    paths.retain(|_, methods| methods != &Value::Object(Map::new()));
    let other = if of.has_codes_in_400 { "application/problem+json" } else { "application/json" };
    let bad_request = &mut document["components"]["responses"]["BadRequest"]["content"];
    bad_request.as_object_mut().context("BadRequest")?.remove(other).context("both forms of a 400")?;
    let schemas = document["components"]["schemas"].as_object_mut().context("schemas")?;
    for (name, index) in [("RoleTaken", taken(of.role_form)), ("RoleGiven", Some(given(of.role_form)))] {
        if let Some(index) = index {
            let form = schemas[name]["anyOf"][index].clone();
            schemas.insert(name.to_owned(), form);
        }
    }
    for (name, schema) in schemas.iter_mut() {
        match schema["x-casing"].as_str() {
            Some("success") => spell(schema, of.casing)?,
            Some("error") => spell(schema, of.error_casing)?,
            _ => continue,
        }
        if name != REQUEST {
            forbid_others(schema)?;
        }
    }
    Ok(document)
}

/// Returns the document with these examples in its schemas.
pub(crate) fn with_examples<const N: usize>(mut document: Value, examples: [(&str, Value); N]) -> Value {
    for (name, example) in examples {
        document["components"]["schemas"][name]["examples"] = Value::Array(vec![example]);
    }
    document
}

/// Returns the form of a role that such a server accepts, name or number; `None` is both.
fn taken(form: RoleForm) -> Option<usize> {
    match form {
        RoleForm::Name => Some(0),
        RoleForm::Number => Some(1),
        RoleForm::Either => None,
    }
}

/// Returns the form in which such a server returns a role.
fn given(form: RoleForm) -> usize {
    usize::from(form == RoleForm::Number)
}

/// Spells the properties of a schema in this casing, not those of nested schemas.
fn spell(schema: &mut Value, casing: Casing) -> anyhow::Result<()> {
    let properties = schema["properties"].as_object_mut().context("properties")?;
    *properties = std::mem::take(properties).into_iter().map(|(name, value)| (casing.spell(&name), value)).collect();
    for name in schema["required"].as_array_mut().context("required")? {
        *name = casing.spell(name.as_str().context("a name")?).into();
    }
    Ok(())
}

/// Forbids properties outside the schema, so that one in another spelling is found.
fn forbid_others(schema: &mut Value) -> anyhow::Result<()> {
    let properties = schema["properties"].as_object().context("properties")?;
    let names: Vec<Value> = properties.keys().cloned().map(Value::from).collect();
    schema["propertyNames"] = serde_json::json!({ "enum": names });
    Ok(())
}
