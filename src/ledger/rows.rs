//! The room's tables.

use crate::store::Schema;

/// This room's tables.
pub const SCHEMA: Schema = Schema {
    room: "ledger",
    steps: &["
        -- Records of requests, up to 256 in a row.
        CREATE TABLE ledger_block (
            no INTEGER PRIMARY KEY, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, rows INTEGER NOT NULL,
            bytes INTEGER NOT NULL, body BLOB NOT NULL, crc INTEGER NOT NULL
        );
        -- A start adds them up without reading the bodies.
        CREATE INDEX ledger_block_sizes ON ledger_block (no, rows, bytes, last_ms);
        CREATE TABLE ledger_sum (
            day INTEGER NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL,
            requests INTEGER NOT NULL, failed INTEGER NOT NULL, cached INTEGER NOT NULL, unrecorded INTEGER NOT NULL,
            input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
            reasoning_tokens INTEGER NOT NULL, unknown_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL,
            cost_pico INTEGER NOT NULL, unknown_cost INTEGER NOT NULL, saved_pico INTEGER NOT NULL, crc INTEGER NOT NULL,
            PRIMARY KEY (day, tenant, key, model, prompt)
        ) WITHOUT ROWID;
        -- What operators did. Each entry holds the hash of the one before.
        CREATE TABLE ledger_audit (
            no INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, clock TEXT NOT NULL, actor TEXT NOT NULL,
            action TEXT NOT NULL, target TEXT NOT NULL, detail TEXT NOT NULL, before BLOB NOT NULL, hash BLOB NOT NULL
        );
    ",
    "
        -- What models of this box took. Of the requests of rows that are there nobody noted it. A row that was not what had
        -- been written stays so.
        ALTER TABLE ledger_sum ADD COLUMN cpu_us INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE ledger_sum ADD COLUMN unknown_cpu INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE ledger_sum ADD COLUMN energy_uwh INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE ledger_sum ADD COLUMN unknown_energy INTEGER NOT NULL DEFAULT 0;
        UPDATE ledger_sum SET unknown_cpu = requests, unknown_energy = requests, crc = row_crc('ledger_sum', day, tenant,
            key, model, prompt, requests, failed, cached, unrecorded, input_tokens, output_tokens, cached_tokens,
            reasoning_tokens, unknown_tokens, estimated, cost_pico, unknown_cost, saved_pico, 0, requests, 0, requests)
        WHERE crc IS row_crc('ledger_sum', day, tenant, key, model, prompt, requests, failed, cached, unrecorded,
            input_tokens, output_tokens, cached_tokens, reasoning_tokens, unknown_tokens, estimated, cost_pico, unknown_cost,
            saved_pico);
    "],
    read_at_start: &[],
};
