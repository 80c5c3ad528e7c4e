//! Defaults that a database may have for reasons of its own, all of them at once, in every test: what
//! the daemon's statements mean must not depend on them.

/// A setting, its hostile default, and what it is when nobody sets it.
const DEFAULTS: &[(&str, &str, &str)] = &[
    // Commits that a crash takes back.
    ("synchronous_commit", "off", "on"),
    // Errors where statements go on.
    (
        "default_transaction_isolation",
        "serializable",
        "read committed",
    ),
    ("default_transaction_deferrable", "on", "off"),
    // Ends and limits.
    ("statement_timeout", "900ms", "0"),
    ("lock_timeout", "50ms", "0"),
    ("idle_session_timeout", "700ms", "0"),
    ("idle_in_transaction_session_timeout", "300ms", "0"),
    ("exit_on_error", "on", "off"),
    // Names that are found elsewhere.
    (
        "search_path",
        "public, pg_temp, pg_catalog",
        "\"$user\", public",
    ),
    ("row_security", "off", "on"),
    // How text is read and written.
    ("standard_conforming_strings", "off", "on"),
    ("backslash_quote", "off", "safe_encoding"),
    ("transform_null_equals", "on", "off"),
    ("array_nulls", "off", "on"),
    ("plpgsql.extra_errors", "all", "none"),
    ("TimeZone", "Pacific/Apia", "UTC"),
    ("DateStyle", "SQL, DMY", "ISO, MDY"),
    ("IntervalStyle", "sql_standard", "postgres"),
    ("extra_float_digits", "-15", "1"),
    ("bytea_output", "escape", "hex"),
    ("xmlbinary", "hex", "base64"),
    ("quote_all_identifiers", "on", "off"),
    ("lc_numeric", "C.UTF-8", "C"),
    ("lc_monetary", "C.UTF-8", "C"),
    ("lc_time", "C.UTF-8", "C"),
    // Plans.
    ("plan_cache_mode", "force_custom_plan", "auto"),
    ("jit_above_cost", "0", "100000"),
    ("enable_seqscan", "on", "on"),
    ("enable_indexscan", "off", "on"),
    ("enable_indexonlyscan", "off", "on"),
    ("enable_bitmapscan", "off", "on"),
    ("enable_nestloop", "off", "on"),
    ("enable_hashjoin", "off", "on"),
    ("enable_hashagg", "off", "on"),
    ("enable_sort", "off", "on"),
    ("enable_material", "off", "on"),
    ("work_mem", "64kB", "4MB"),
];

/// The statements that make them the defaults of a database.
pub(super) fn defaults_of(database: &str) -> String {
    let set = DEFAULTS.iter().map(|(name, hostile, _)| {
        // A list is written as a list.
        let value = hostile.replace(", ", "', '");
        format!("alter database {database} set {name} = '{value}'; ")
    });
    set.collect()
}

/// What the connections of the tests' own are set to.
pub(super) fn usual() -> impl Iterator<Item = (&'static str, &'static str)> {
    DEFAULTS.iter().map(|(name, _, usual)| (*name, *usual))
}
