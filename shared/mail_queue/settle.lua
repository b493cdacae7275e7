-- What became of claimed mails: the receipt in any case; RQ's state and the thread only where the claim still holds.
--
-- KEYS  10 the worker · 11 the worker's executions · 12 the relay
-- ARGV  8 name of the worker · 9 time as RQ writes it · 10 first and 11 longest pause in seconds between probes
--       12 as JSON, a row of texts for each mail, in the order of taking: id · execution · outcome (delivered, later,
--       held, dropped, dead) · reason · detail · pause in seconds · perhaps ('1': the relay may have taken it)
--       · exc_string of a dead one · how the relay has met it ('in': it let us in, 'busy': the same, but it takes nothing
--       now, 'us': it refused our sender or login, 'away': it turned us away, '') · when it was claimed
-- Gives {mails whose claim was lost, mails dropped as canceled that would have been tried again, faults}.
local worker_key, worker_executions = KEYS[OWN_KEYS + 1], KEYS[OWN_KEYS + 2]
local worker, iso, first_probe, longest_probe = ARGV[8], ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11])
local lost, succeeded, failed, worked = 0, 0, 0, 0
local held = {}

local away = read_away()

-- So many mails probe in turn, and no more: the queue is to keep its order, roughly.
local PROBES_IN_TURN = 10

local function try_later(id, pause, perhaps, attempts, started)
    redis.call('ZREM', FAILED, id)  -- where a stale write of RQ's may have put it
    redis.call('PERSIST', JOB .. id)
    redis.call('HSET', JOB .. id, 'status', 'scheduled', 'claim', '', 'deaths', '0', 'perhaps', perhaps,
        'attempts', attempts, 'number_of_retries', attempts, 'ended_at', iso)
    note_in_receipt(id, perhaps)
    if started then
        redis.call('HSETNX', JOB .. id, 'first_tried', started)
    end
    redis.call('ZADD', SCHEDULED, math.ceil(now + pause), id)
end

-- How we were refused: the reason with reply code and enhanced code (RFC 3463), for a relay's words may name the mail.
local function refusal_of(reason, detail)
    local code = string.match(detail, '^%d%d%d [245]%.%d+%.%d+') or string.match(detail, '^%d%d%d') or ''
    return reason .. ' ' .. code
end

-- Three different mails in which we were refused in the same way, and nothing else between them: no mail is at fault.
local function is_refused_in_a_row(relay, id, refusal)
    local refused, number = relay.refusal == refusal and relay.refused or '', 0
    if not string.find(refused, id .. ' ', 1, true) then
        refused = refused .. id .. ' '
        write_relay('HSET', 'refused', refused, 'refusal', refusal)
    end
    for _ in string.gmatch(refused, ' ') do
        number = number + 1
    end
    return number >= REFUSALS_THAT_OPEN
end

-- Only now and then: it is to cost no command a mail. Mails that a worker sent before it was turned away tell nothing.
local function note_let_in(relay)
    if relay.changed and not away.at and now - tonumber(relay.in_at or '0') > NOTED_SECONDS then
        write_relay('HSET', 'in_at', seconds(now))
    end
end

-- Is it this worker alone that is turned away? Not if those who were let in have sent nothing since, or are gone.
local function others_get_in(relay)
    return is_alone(relay, away) and relay.in_at and now - tonumber(relay.in_at) < LATELY_SECONDS
end

local function let_in(relay, is_probe, claimed_at)
    if away.at and tonumber(claimed_at) > tonumber(away.at) then
        redis.call('DEL', AWAY)
        away = {}
    end
    -- Only probes are claimed while the relay is held, and one may take longer than it counts as such.
    if relay.state == 'open' and not is_probe and tonumber(claimed_at) <= tonumber(relay.changed) then
        return
    end
    note_let_in(relay)
    if relay.state == 'open' then
        return release_relay()
    end
    if relay.refused then
        write_relay('HDEL', 'refused', 'refusal')
    end
    local window = tonumber(relay.window or '0')
    if window > 0 then
        write_relay('HSET', 'window', window < LARGE_WINDOW and window + 1 or 0)
    end
end

-- All wait for the relay, or this worker alone where it was turned away before, and others are let in.
local function turn_away(relay, reason, detail, hint)
    local wait = tonumber(away.wait or '0')
    if others_get_in(relay) then
        wait = math.min(longest_probe, math.max(first_probe, 2 * wait))
    else
        hold_relay(relay, reason, detail, hint, first_probe, longest_probe)
    end
    redis.call('HSET', AWAY, 'at', seconds(now), 'reason', reason, 'detail', detail, 'wait', wait,
        'retry_at', seconds(now + math.max(wait, hint)))
    redis.call('EXPIRE', AWAY, math.ceil(HOUR + math.max(wait, hint)))
    away = read_away()
end

-- What a mail tells about the relay. Gives whether the mail is to wait until the relay lets another one in, and whether
-- it was a probe, or one of a worker that tries by itself.
local function meet(id, execution, met, reason, detail, hint, claimed_at)
    local relay = read_relay()
    local is_probe = relay.probe == entry_of(id, execution)
    if is_probe then
        write_relay('HDEL', 'probe', 'probe_until')
    end
    if met == 'in' or met == 'busy' then
        let_in(relay, is_probe, claimed_at)
    end
    -- The row is shared by all: what one worker alone meets does not belong into it.
    local is_away = met == 'away' or (met == 'us' and (is_probe or others_get_in(relay)
        or is_refused_in_a_row(relay, id, refusal_of(reason, detail))))
    local is_try = is_probe or is_alone(relay, away)
    if not is_away then
        return false, is_try
    end
    -- What was begun before a probe was let in, or beside it, tells nothing new; nor before this worker was turned away.
    local known_since = math.max(tonumber(relay.changed or '0'), tonumber(away.at or '0'))
    if is_probe or (relay.state ~= 'open' and tonumber(claimed_at) >= known_since) then
        turn_away(relay, reason, detail, hint)
    end
    return true, is_try
end

-- Ids of mails that are done with, which leave RQ's registries together.
local forgotten = {}

local function settle(is_claimed, id, execution, outcome, reason, detail, pause, perhaps, exc_string, met, started)
    local job = redis.call('HMGET', JOB .. id, 'perhaps', 'attempts', 'thread', 'status', 'claim')
    local mine = is_claimed and job[5] == execution
    local is_attempt = outcome ~= 'later' or (met ~= '' and met ~= 'busy')
    local attempts = count(job[2]) + (is_attempt and 1 or 0)
    local perhaps_now = perhaps
    perhaps = (job[1] == '1' or perhaps == '1') and '1' or '0'
    -- The pause of a mail that is to wait by itself is its own, and no wish of the relay's.
    local hint = outcome == 'held' and tonumber(pause) or 0
    local is_away, is_try = meet(id, execution, met, reason, detail, hint, started)
    if is_away then
        outcome = 'held'
    end
    if outcome == 'delivered' then
        write_receipt(id, 'delivered', perhaps, '', detail, attempts)
        if not mine and redis.call('ZSCORE', FAILED, id) then
            forget_job(id)  -- it was among the dead letters, and was delivered after all
        end
    end
    if not mine or outcome ~= 'delivered' then
        redis.call('ZREM', EXECUTIONS .. id, execution)
    end
    if not mine then
        lost = lost + 1
        return
    end
    worked = worked + (now - tonumber(started))
    if outcome == 'delivered' or delivered_before(id) then
        outcome = 'delivered'
    elseif job[4] == 'canceled' then
        -- A final verdict has been counted already, as what it is.
        canceled = canceled + ((outcome == 'later' or outcome == 'held') and 1 or 0)
        outcome, reason, detail = 'dropped', 'canceled', ''
    end
    if outcome == 'held' then
        -- The next ones that try are other mails: this one may be the only one that the relay turns away.
        held[#held + 1] = {id, execution, perhaps_now, is_try and PROBES_IN_TURN or 0}
        return
    end
    if outcome == 'later' then
        failed = failed + 1
        return try_later(id, tonumber(pause), perhaps, attempts, met ~= '' and started)
    end
    if outcome == 'dead' then
        failed = failed + 1
        bury(id, perhaps, reason, detail, attempts, exc_string, worker, execution, started, iso)
    else
        succeeded = succeeded + 1
        if outcome == 'dropped' then
            write_receipt(id, outcome, perhaps, reason, detail, attempts)
        end
        redis.call('DEL', JOB .. id, RESULTS .. id, EXECUTIONS .. id)
        forgotten[#forgotten + 1] = id
    end
    next_of_thread(id, job[3] or '', iso)
end

-- One argument for all: Redis and its client take longer over each one than JSON over all of them.
local mails = cjson.decode(ARGV[12])
local entries, executions = {}, {}
for i, mail in ipairs(mails) do
    entries[i] = entry_of(mail[1], mail[2])
    executions[i] = EXECUTION .. entries[i]
end
local claimed = scores_of(CLAIMS, entries)
-- First, because it needs no memory: a Redis that is full lets a script go on that has already written, so that mails
-- leave the queue, which makes room.
call_with('ZREM', STARTED, entries)
call_with('ZREM', CLAIMS, entries)
call_with('SREM', worker_executions, entries)
call_with('DEL', executions[1], executions)
for i, mail in ipairs(mails) do
    attempt_or_die(mail[1], mail[2], settle, claimed[i], unpack(mail))
end
leave_registries(forgotten)
for i = #held, 1, -1 do
    local id, execution, perhaps, behind = unpack(held[i])
    attempt_or_die(id, execution, put_back, id, perhaps, iso, behind)
end
if redis.call('EXISTS', worker_key) == 1 then
    redis.call('HINCRBY', worker_key, 'successful_job_count', succeeded)
    redis.call('HINCRBY', worker_key, 'failed_job_count', failed)
    redis.call('HINCRBYFLOAT', worker_key, 'total_working_time', string.format('%.6f', worked))
end
return {lost, canceled, faults}
