//! JSON Schema (2020-12) of the programs' output and files, generated from the types.
//!
//! Compiled only with the feature `schema`: for `docs/schema` and for the tests, not for the released programs.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::common::check::Check;

/// Prefix of a document's `$id`, before its name. A URN, because there is nothing to fetch.
const ID: &str = "urn:azaion:schema:";

/// The schema of one kind of file, or of one line of output.
#[derive(Clone, Debug)]
pub struct Document {
    /// The name of the file in `docs/schema`, without the extension.
    pub name: &'static str,
    /// The schema.
    pub schema: Schema,
}

impl Document {
    /// Generates the schema of `T` as it is serialised. `what` describes where the JSON is found, and what it is for.
    pub fn of<T: JsonSchema>(name: &'static str, title: &str, what: &str) -> Self {
        let mut schema = of::<T>();
        for (key, text) in [("$id", format!("{ID}{name}")), ("title", title.into()), ("description", what.into())] {
            schema.insert(key.to_owned(), text.into());
        }
        Self { name, schema }
    }

    /// Generates the schema of a [`Check`] of a program that makes the checks `ids`.
    pub fn of_checks(name: &'static str, title: &str, what: &str, ids: &[&str]) -> Self {
        Self::of::<Check>(name, title, what).narrowed("id", "enum", json!(ids))
    }

    /// Adds a keyword to the schema of one field.
    #[must_use]
    pub fn narrowed(mut self, field: &str, keyword: &str, value: Value) -> Self {
        narrow(&mut self.schema, &format!("/properties/{field}"), keyword, value);
        self
    }

    /// Declares that an object has exactly one of several forms.
    #[must_use]
    pub fn of_forms(mut self, forms: &[Form<'_>]) -> Self {
        self.schema.insert("oneOf".to_owned(), forms.iter().map(Form::schema).collect());
        self
    }
}

/// Adds a keyword to the part of a schema at a JSON pointer.
pub fn narrow(schema: &mut Schema, pointer: &str, keyword: &str, value: Value) {
    if let Some(part) = schema.pointer_mut(pointer).and_then(Value::as_object_mut) {
        part.insert(keyword.to_owned(), value);
    }
}

/// One of several forms of an object.
#[derive(Clone, Debug, Default)]
pub struct Form<'a> {
    /// What the object means in this form.
    pub title: &'a str,
    /// A field that distinguishes this form from the others, and the schema of its values in this form.
    pub discriminator: Option<(&'a str, Value)>,
    /// Required fields, in addition to those of all forms.
    pub required: &'a [&'a str],
    /// Fields that this form does not have.
    pub absent: &'a [&'a str],
}

impl Form<'_> {
    fn schema(&self) -> Value {
        let absent = self.absent.iter().map(|field| ((*field).to_owned(), Value::Bool(false)));
        let discriminator = self.discriminator.iter().map(|(field, value)| ((*field).to_owned(), value.clone()));
        let properties: Map<String, Value> = absent.chain(discriminator).collect();
        let discriminator = self.discriminator.iter().map(|(field, _)| *field);
        let required: Vec<&str> = discriminator.chain(self.required.iter().copied()).collect();
        json!({ "title": self.title, "properties": properties, "required": required })
    }
}

/// Generates the self-contained schema of `T` as it is serialised.
pub fn of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    for simplify in [portable, closed, never_null] {
        RecursiveTransform(simplify).transform(&mut schema);
    }
    schema
}

/// Removes the formats of Rust's numbers, which JSON Schema does not define and strict readers refuse; the bounds stay. Removes the
/// default values of absent fields, which only our own readers use.
fn portable(schema: &mut Schema) {
    schema.remove("default");
    let is_of_rust = |format: &Value| format.as_str().is_some_and(|format| format.starts_with("uint"));
    if schema.get("format").is_some_and(is_of_rust) {
        schema.remove("format");
    }
}

/// Closes an object, so that a field without a description is an error.
fn closed(schema: &mut Schema) {
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}

/// Forbids null in an optional field: the programs omit the field instead.
fn never_null(schema: &mut Schema) {
    let required = schema.get("required").cloned().unwrap_or_default();
    let is_required = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|other| other == name));
    let Some(Value::Object(fields)) = schema.get_mut("properties") else { return };
    for (_, field) in fields.iter_mut().filter(|(name, _)| !is_required(name)) {
        without_null(field);
    }
}

fn without_null(field: &mut Value) {
    let Some(field) = field.as_object_mut() else { return };
    if let Some(Value::Array(types)) = field.get_mut("type") {
        types.retain(|name| name != "null");
        if let [name] = &mut types[..] {
            let name = name.take();
            field.insert("type".to_owned(), name);
        }
    }
    // An optional value of a type with a schema of its own.
    if let Some(Value::Array(mut choices)) = field.remove("anyOf") {
        choices.retain(|choice| choice != &json!({ "type": "null" }));
        match &mut choices[..] {
            [Value::Object(only)] => {
                let description = field.remove("description");
                field.append(only);
                field.extend(description.map(|text| ("description".to_owned(), text)));
            }
            _ => {
                field.insert("anyOf".to_owned(), Value::Array(choices));
            }
        }
    }
}
