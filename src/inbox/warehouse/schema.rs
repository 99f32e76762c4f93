//! Tables and statements. A step, once released, is never edited.

/// What each step of the schema does; `{partitions}` is the number of hash partitions of the table of rows.
pub(super) const STEPS: &[&str] = &["
    CREATE TABLE forebay_series (
        series_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        tenant text NOT NULL,
        gateway text NOT NULL,
        epoch bigint NOT NULL,
        class text NOT NULL,
        stream text NOT NULL,
        highest bigint NOT NULL DEFAULT 0,
        duplicates bigint NOT NULL DEFAULT 0,
        UNIQUE (tenant, gateway, epoch, class, stream)
    ) WITH (fillfactor = 70);
    CREATE TABLE forebay_received (
        series_no bigint NOT NULL,
        first bigint NOT NULL,
        last bigint NOT NULL,
        PRIMARY KEY (series_no, first)
    ) WITH (fillfactor = 70);
    CREATE TABLE forebay_lost (
        series_no bigint NOT NULL,
        first bigint NOT NULL,
        last bigint NOT NULL,
        count bigint NOT NULL,
        reason text NOT NULL,
        wall_ms bigint NOT NULL,
        PRIMARY KEY (series_no, first, last)
    );
    CREATE TABLE forebay_row (
        series_no bigint NOT NULL,
        seq bigint NOT NULL,
        wall_ms bigint NOT NULL,
        boot_ms bigint NOT NULL,
        clock_state text NOT NULL,
        body bytea NOT NULL,
        PRIMARY KEY (series_no, seq)
    ) PARTITION BY HASH (series_no);
    DO $do$ BEGIN
        FOR part IN 0..{partitions} - 1 LOOP
            EXECUTE format('CREATE TABLE forebay_row_%s PARTITION OF forebay_row
                FOR VALUES WITH (MODULUS {partitions}, REMAINDER %s)', part, part);
        END LOOP;
    END $do$;
    CREATE TABLE forebay_rejected (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        wall_ms bigint NOT NULL,
        topic text NOT NULL,
        reason text NOT NULL,
        size_bytes bigint NOT NULL,
        payload bytea NOT NULL
    );
"];

/// One collector at a time makes tables: "forebay" in numbers.
pub(super) const MIGRATION_LOCK: i64 = 0x0066_6f72_6562_6179;

/// Which of the wanted series exist. The keys come in five columns, in the order of the process.
pub(super) const FIND: &str = "
    SELECT k.ord, s.series_no
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[])
        WITH ORDINALITY AS k (tenant, gateway, epoch, class, stream, ord)
    JOIN forebay_series s USING (tenant, gateway, epoch, class, stream)";

/// The newest number is never below the count of series.
pub(super) const COUNT: &str = "SELECT coalesce(max(series_no), 0) FROM forebay_series";

/// New series, in the order of their keys, so that two collectors never wait for each other in a circle.
pub(super) const CREATE: &str = "
    INSERT INTO forebay_series (tenant, gateway, epoch, class, stream)
    SELECT tenant, gateway, epoch, class, stream
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[])
        WITH ORDINALITY AS k (tenant, gateway, epoch, class, stream, ord)
    ORDER BY ord
    ON CONFLICT (tenant, gateway, epoch, class, stream) DO NOTHING";

/// Whoever holds these rows is the only one that changes what belongs to them. In the order of the keys, as above.
pub(super) const LOCK: &str = "
    SELECT s.series_no
    FROM unnest($1::bigint[]) WITH ORDINALITY AS k (series_no, ord)
    JOIN forebay_series s USING (series_no)
    ORDER BY k.ord
    FOR UPDATE OF s";

/// The stored ranges that overlap or touch the wanted ones, from `first` to one less than `upto`. Ranges are disjoint, so only the last one that begins
/// before a wanted one can reach it: the index is not scanned from its beginning.
pub(super) const RANGES: &str = "
    SELECT r.series_no, r.first, r.last
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS k (series_no, first, upto)
    CROSS JOIN LATERAL (
        SELECT series_no, first, last FROM forebay_received
        WHERE series_no = k.series_no
            AND first >= coalesce(
                (SELECT max(first) FROM forebay_received WHERE series_no = k.series_no AND first < k.first), k.first)
            AND first <= k.upto
            AND last >= k.first - 1
    ) r
    ORDER BY r.series_no, r.first";

/// Declared ranges that meet the wanted ones; they may overlap, and are few.
pub(super) const DECLARED: &str = "
    SELECT l.series_no, l.first, l.last
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS k (series_no, first, last)
    JOIN forebay_lost l ON l.series_no = k.series_no AND l.first <= k.last AND l.last >= k.first";

pub(super) const INSERT_ROWS: &str = "
    INSERT INTO forebay_row (series_no, seq, wall_ms, boot_ms, clock_state, body)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[])";

pub(super) const DELETE_RANGES: &str = "
    DELETE FROM forebay_received r
    USING unnest($1::bigint[], $2::bigint[]) AS k (series_no, first)
    WHERE r.series_no = k.series_no AND r.first = k.first";

pub(super) const PUT_RANGES: &str = "
    INSERT INTO forebay_received (series_no, first, last)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])
    ON CONFLICT (series_no, first) DO UPDATE SET last = excluded.last";

pub(super) const DECLARE: &str = "
    INSERT INTO forebay_lost (series_no, first, last, count, reason, wall_ms)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[])
    ON CONFLICT (series_no, first, last) DO NOTHING";

pub(super) const UPDATE_SERIES: &str = "
    UPDATE forebay_series s
    SET highest = greatest(s.highest, k.highest), duplicates = s.duplicates + k.duplicates
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS k (series_no, highest, duplicates)
    WHERE s.series_no = k.series_no";

pub(super) const REJECT: &str = "
    INSERT INTO forebay_rejected (wall_ms, topic, reason, size_bytes, payload) VALUES ($1, $2, $3, $4, $5)";

/// The oldest go first.
pub(super) const FORGET_REJECTED: &str = "
    DELETE FROM forebay_rejected WHERE id <= (SELECT max(id) FROM forebay_rejected) - $1";

pub(super) const REPORT: &str = "
    SELECT s.gateway, s.epoch, s.class, s.stream, s.highest, s.duplicates,
        r.firsts, r.lasts, l.firsts, l.lasts, l.counts, l.reasons, l.times
    FROM forebay_series s
    LEFT JOIN LATERAL (
        SELECT array_agg(first ORDER BY first) AS firsts, array_agg(last ORDER BY first) AS lasts
        FROM forebay_received WHERE series_no = s.series_no
    ) r ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(first ORDER BY first, last DESC) AS firsts, array_agg(last ORDER BY first, last DESC) AS lasts,
            array_agg(count ORDER BY first, last DESC) AS counts, array_agg(reason ORDER BY first, last DESC) AS reasons,
            array_agg(wall_ms ORDER BY first, last DESC) AS times
        FROM forebay_lost WHERE series_no = s.series_no
    ) l ON true
    WHERE s.tenant = $1
    ORDER BY s.gateway, s.epoch, s.class, s.stream";
