#!/bin/bash
# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Fills the new database with about SEED_ROWS rows (default 50000) of made-up history, over the last hundred days or so:
# some of it older than the oldest monthly partition.
set -eu

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --single-transaction --set=rows="${SEED_ROWS:-50000}" <<'SQL'
SELECT setseed(0.5) \g /dev/null

INSERT INTO operators (name, role, public_key) VALUES
    ('ada', 'admin', decode('00ff0a0d5c27', 'hex')), ('grace', 'trader', NULL), ('night watch', 'viewer', '\x01');
INSERT INTO strategies (phase, name, parameters)
    SELECT p.id, s, jsonb_build_object('lookback', 20 * p.id, 'name', s)
    FROM phases p, unnest(ARRAY['momentum', 'carry', 'mean-reversion']) s;
INSERT INTO system_state VALUES ('regime', '"sideways"'), ('leverage', '{"max": 3, "now": 1.25}');
INSERT INTO high_watermark (equity) VALUES (125000.5);
INSERT INTO risk_limits (symbol, max_position) SELECT symbol, 1000 FROM symbols;

-- Orders, and two fills each; the rest of the history hangs on them.
INSERT INTO signals (strategy_id, symbol, confidence, features)
    SELECT 1 + i % 12, (ARRAY['BTCUSDT', 'ETHUSDT', 'SOLUSDT', 'AVAXUSDT'])[1 + i % 4], random(),
        jsonb_build_object('rsi', round((random() * 100)::numeric, 2), 'tags', ARRAY['a' || i % 7, 'b' || i % 11])
    FROM generate_series(1, :rows / 50) i;
INSERT INTO brain_decisions (signal_id, symbol, action, detail, decided_at)
    SELECT id, symbol, 'ENTER', jsonb_build_object('confidence', confidence), now() - random() * interval '100 days'
    FROM signals;
INSERT INTO orders (decision_id, symbol, side, quantity, price, placed_at)
    SELECT 1 + i % (:rows / 50), (ARRAY['BTCUSDT', 'ETHUSDT', 'SOLUSDT', 'AVAXUSDT'])[1 + i % 4],
        (ARRAY['BUY', 'SELL'])[1 + i % 2]::trade_side, 0.001 + random(), 10 + random() * 60000,
        now() - random() * interval '120 days'
    FROM generate_series(1, :rows / 10) i;
INSERT INTO fills (order_id, symbol, side, quantity, price, fee, filled_at)
    SELECT id, symbol, side, quantity / 2, price, quantity * price / 2000, placed_at + part * interval '1 second'
    FROM orders, generate_series(1, 2) part;
INSERT INTO phase_trades (phase, order_id, pnl) SELECT 1 + id % 4, id, random() * 200 - 90 FROM orders;
INSERT INTO event_log (kind, payload, note, occurred_at)
    SELECT (ARRAY['tick', 'intent', 'risk', 'health'])[1 + i % 4],
        jsonb_build_object('n', i, 'latency_us', (random() * 5000)::int, 'source', 'seed'),
        -- Text that a careless dump or restore would change.
        CASE i % 500 WHEN 0 THEN E'two lines,\r\na tab\t, a backslash \\ and a \\. of its own:\n\\.' WHEN 1 THEN 'π ≈ 3.14 – ✓' END,
        now() - random() * interval '120 days'
    FROM generate_series(1, :rows * 4 / 10) i;
INSERT INTO ledger_accounts (code, currency)
    SELECT code, 'USD' FROM unnest(ARRAY['assets:cash', 'assets:margin', 'income:pnl', 'expenses:fees']) code;
INSERT INTO ledger_transactions (memo) SELECT 'fill ' || i FROM generate_series(1, :rows / 20) i;
INSERT INTO ledger_entries
    SELECT id, line, 1 + (id + line) % 4, CASE line WHEN 1 THEN 1 ELSE -1 END * (id % 1000 + 0.25)
    FROM ledger_transactions, generate_series(1, 2) line;
INSERT INTO position_snapshots (symbol, quantity, entry_price, taken_at)
    SELECT symbol, random() * 10, 100, now() - i * interval '1 hour' FROM symbols, generate_series(1, 24 * 20) i;
INSERT INTO risk_snapshots (var_95, correlations, taken_at)
    SELECT random() * 1000, ARRAY[random(), random(), random()], now() - i * interval '1 hour' FROM generate_series(1, 500) i;
INSERT INTO phase_performance
    SELECT p.id, current_date - i, random() * 3, random() FROM phases p, generate_series(0, 99) i;
INSERT INTO truth_snapshots (source_id, balances)
    SELECT 1 + i % 3, jsonb_build_object('USD', 1000 + i) FROM generate_series(1, 300) i;
INSERT INTO truth_drift_events (snapshot_id, drift) SELECT id, 0.01 FROM truth_snapshots WHERE id % 10 = 0;
INSERT INTO reconciliation_runs (took, clean) SELECT interval '1.5 s', i % 9 <> 0 FROM generate_series(1, 100) i;
INSERT INTO treasury_operations (operator_id, amount, kind) SELECT id, 500, 'sweep' FROM operators;
INSERT INTO circuit_breaker_events (state, reason, operator_id) SELECT 'closed', 'reset by ' || name, id FROM operators;
INSERT INTO config_overrides (operator_id, key, value) SELECT id, 'max_leverage', '2' FROM operators WHERE role = 'admin';
INSERT INTO config_receipts (override_id, service, digest) SELECT id, 'titan-brain', sha256('2') FROM config_overrides;
INSERT INTO alerts (severity, message) VALUES ('critical', 'it''s a "test"'), ('info', '');
INSERT INTO audit_log (operator_id, action) SELECT id, 'login' FROM operators;
INSERT INTO ai_analyses (provider, prompt_digest, answer) VALUES ('none', sha256(''), NULL);
REFRESH MATERIALIZED VIEW daily_volume;
SQL
psql --no-psqlrc --quiet --command='ANALYZE'
