-- Takes up to n jobs from the queue into this worker's hands, with all that their delivery needs.
--
-- KEYS  10 the worker · 11 the worker's executions · 12 the relay · 13 RQ's switch that suspends all workers
-- ARGV  8 name of the worker · 9 time as RQ writes it · 10 seconds that a claim lives
--       11 deaths in a row that a job survives · 12 exc_string of one that has died too often
--       13 mails a second and 14 mails in flight that all mailers together may give the relay, 0 for no limit
--       15 as JSON: a fresh execution id for each job that may be taken
-- Gives {now, jobs, requests, buried, mails dropped as canceled, faults, pause, is a probe, reason for which the relay is
-- held, when that changed, reason for which it turns this worker alone away, detail of either}.
-- A job is {id, execution, data, attempts, first tried, revived, perhaps ('1': the relay may have it, and no operator has
-- brought it back since), outcome of its own receipt, announced ('1': its thread's first mail was taken, certainly or
-- perhaps), suspect ('1': claimed alone, for it may be what its workers died of), request}; a request is {id, facts};
-- buried are the ids of jobs that have died too often; pause: seconds until it is worth while to ask again though the
-- queue has jobs, 0 if it has none. Values that do not exist are ''.
local worker_key, worker_executions, suspended = KEYS[OWN_KEYS + 1], KEYS[OWN_KEYS + 2], KEYS[OWN_KEYS + 4]
local worker, iso, life, deaths_survived, poison = ARGV[8], ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local pace, most_in_flight = tonumber(ARGV[13]), tonumber(ARGV[14])
local jobs, requests, asked, buried = {}, {}, {}, {}
-- What is noted of all jobs that are taken, in one command each.
local started, claims, taken = {}, {}, {}
local stuck = {}
local is_full = false
local executions = cjson.decode(ARGV[15])
local SUSPECT_DEATHS = 2
local POLL_SECONDS = 0.1
-- The relay may turn away this worker alone, so that others do better to probe.
local POLITE_SECONDS = 0.5

-- Its place in the thread. A replayed letter may find others before it: then it waits for its turn.
local function is_head(id, thread)
    if thread == '' then
        return true
    end
    local head = redis.call('LINDEX', THREAD .. thread, 0)
    if head == id then
        return true
    end
    if not head or not redis.call('LPOS', THREAD .. thread, id) then
        redis.call('RPUSH', THREAD .. thread, id)
        redis.call('EXPIRE', THREAD .. thread, MONTH)
    end
    return not head
end

local function receipt_of(id)
    return redis.call('HMGET', RECEIPT .. id, 'outcome', 'perhaps')
end

local function is_announced(request, thread, id, own)
    local first = request .. '-requested-' .. string.sub(thread, #request + 2)
    local receipt = first == id and own or receipt_of(first)
    return (receipt[1] == 'delivered' or receipt[2] == '1') and '1' or ''
end

local function facts_of(request)
    if request ~= '' and not asked[request] then
        requests[#requests + 1] = {request, redis.call('HGET', REQUEST .. request, 'facts') or ''}
        asked[request] = true
    end
end

local function take(id, execution, job)
    local data, thread, request, attempts, first_tried, revived, perhaps, suspect = unpack(job)
    -- All that may fail comes first: a job that cannot be taken is tried again and again, and is to leave nothing.
    local receipt = receipt_of(id)
    local announced = thread ~= '' and is_announced(request, thread, id, receipt) or ''
    facts_of(request)
    redis.call('ZADD', EXECUTIONS .. id, FAR, execution)
    redis.call('EXPIRE', EXECUTIONS .. id, life * 2)
    local entry = entry_of(id, execution)
    redis.call('HSET', JOB .. id, 'status', 'started', 'started_at', iso, 'last_heartbeat', iso,
        'worker_name', worker, 'claim', execution)
    redis.call('HSET', EXECUTION .. entry, 'id', execution, 'job_id', id, 'created_at', seconds(now),
        'last_heartbeat', seconds(now), 'worker_name', worker)
    redis.call('EXPIRE', EXECUTION .. entry, life * 2)
    if receipt[1] == 'dead' then
        redis.call('HSET', RECEIPT .. id, 'perhaps', '1')  -- from now on the relay may have it
    end
    jobs[#jobs + 1] = {id, execution, data, attempts, first_tried, revived, perhaps, receipt[1] or '', announced,
        suspect, request}
    taken[#taken + 1] = entry
    started[#started + 1], started[#started + 2] = FAR, entry
    claims[#claims + 1], claims[#claims + 2] = now + life, entry
end

-- Gives whether the job stays at the queue's head.
local function claim(id, execution, has_failed)
    if string.find(id, '[\128-\255]') then
        error('no id that RQ would give: its tools fail at one that is no text', 0)
    end
    local f = redis.call('HMGET', JOB .. id, 'status', 'claim', 'deaths', 'attempts', 'first_tried', 'revived',
        'perhaps', 'thread', 'request', 'data', 'consent')
    local status, holder, thread = f[1], f[2] or '', f[8] or ''
    if status == 'canceled' then
        if drop_canceled(id) then
            next_of_thread(id, thread, iso)
        end
        return false
    end
    if status ~= 'queued' then
        return false
    end
    -- Stale writes of RQ's own clean-up or scheduler: somebody holds it, or it is a dead letter.
    if holder ~= '' and is_live(id, holder) then
        redis.call('HSET', JOB .. id, 'status', 'started')
        return false
    end
    if has_failed then
        redis.call('HSET', JOB .. id, 'status', 'failed')
        return false
    end
    -- A hash that has a lifetime comes back from the dead letters: an operator asks for it, all counts start again.
    local revived = (f[6] == '1' or redis.call('TTL', JOB .. id) >= 0) and '1' or ''
    if revived == '1' then
        redis.call('PERSIST', JOB .. id)
        if f[6] ~= '1' then
            -- Whoever brings it back wants it sent although the relay may have it, until it may have it once more.
            f[3], f[4], f[5], f[11] = '0', '0', false, '1'
            redis.call('HSET', JOB .. id, 'revived', '1', 'attempts', '0', 'deaths', '0', 'consent', '1')
            redis.call('HDEL', JOB .. id, 'first_tried')
        end
    end
    if not is_head(id, thread) then
        redis.call('ZADD', DEFERRED, math.floor(now), id)
        redis.call('HSET', JOB .. id, 'status', 'deferred')
        return false
    end
    -- A claim that was neither settled nor released is a death, and the relay may have the mail.
    local deaths, perhaps = count(f[3]) + (holder ~= '' and 1 or 0), f[7] == '1' and '1' or '0'
    local suspect = deaths >= SUSPECT_DEATHS and deaths <= deaths_survived
    if suspect then
        is_full = true
        if #jobs > 0 or redis.call('SCARD', worker_executions) > 0 then
            return true  -- until this worker has nothing else in hand, or another has
        end
    end
    if holder ~= '' then
        end_execution(id, holder)
        perhaps, f[11] = '1', ''
        -- With the claim goes what would count this death once more, should the job not be taken now.
        redis.call('HSET', JOB .. id, 'claim', '', 'deaths', deaths, 'perhaps', perhaps, 'consent', '')
    end
    if deaths > deaths_survived then
        if bury(id, perhaps, 'poison', '', count(f[4]), poison, worker, execution, seconds(now), iso) then
            buried[#buried + 1] = id
        end
        next_of_thread(id, thread, iso)
        return false
    end
    local is_doubtful = perhaps == '1' and f[11] ~= '1'
    take(id, execution, {f[10] or '', thread, f[9] or '', f[4] or '0', f[5] or '', revived,
        is_doubtful and '1' or '', suspect and '1' or ''})
    return false
end

-- Jobs that were popped from the queue. What is behind one that is handled alone goes back to where it was.
local function claim_each(ids, failed, used)
    for i, id in ipairs(ids) do
        local is_done, stays = attempt(id, claim, id, executions[used + i], failed[i])
        if not is_done then
            stuck[#stuck + 1] = id
        end
        if is_full then
            for behind = #ids, is_done and stays and i or i + 1, -1 do
                redis.call('LPUSH', QUEUE, ids[behind])
            end
            return
        end
    end
end

-- How many mails the pace allows: it saves up a tenth of a second's, one at least.
local function tokens_of(relay)
    local tokens, filled = tonumber(relay.tokens or '1'), tonumber(relay.filled or seconds(now))
    return math.min(math.max(1, pace / 10), tokens + (now - filled) * pace)
end

-- How many jobs may be taken, seconds until more may, and whether the first is a probe.
local function allowance(relay, away)
    if relay.state == 'open' then
        local probe_at = tonumber(relay.probe_at)
        if away.at then
            probe_at = probe_at + math.min(POLITE_SECONDS, tonumber(relay.wait) / 2)
        end
        local is_probing = relay.probe and redis.call('ZSCORE', CLAIMS, relay.probe) and now < tonumber(relay.probe_until)
        if is_probing or now < probe_at then
            return 0, is_probing and POLL_SECONDS or probe_at - now, false
        end
        return 1, POLL_SECONDS, true
    end
    local most, wait = #executions, POLL_SECONDS
    if is_alone(relay, away) then
        if now < tonumber(away.retry_at) then
            return 0, tonumber(away.retry_at) - now, false
        end
        most = 1 - redis.call('SCARD', worker_executions)
    end
    -- What waits at a slow relay may go on at once, so it is to be no more than the pace allows.
    local most_at_pace = pace > 0 and math.max(2, math.ceil(pace)) or 0
    for _, bound in ipairs({window_of(relay) or 0, most_in_flight, most_at_pace}) do
        if bound > 0 then
            most = math.min(most, bound - redis.call('ZCOUNT', CLAIMS, now, '+inf'))
        end
    end
    if pace > 0 then
        local tokens = tokens_of(relay)
        most = math.min(most, math.floor(tokens))
        wait = math.max(POLL_SECONDS / 2, (1 - tokens) / pace)
    end
    return most, wait, false
end

local function note_taken(relay, is_probe)
    call_with('ZADD', STARTED, started)
    call_with('ZADD', CLAIMS, claims)
    call_with('SADD', worker_executions, taken)
    redis.call('EXPIRE', worker_executions, life * 4)
    if redis.call('EXISTS', worker_key) == 1 then
        redis.call('HSET', worker_key, 'state', 'busy')
    end
    if is_probe then
        redis.call('HSET', RELAY, 'probe', entry_of(jobs[1][1], jobs[1][2]), 'probe_until', now + PROBE_SECONDS)
    elseif not relay.changed then
        redis.call('HSET', RELAY, 'state', 'closed', 'changed', seconds(now), 'window', 1)
    end
    if pace > 0 then
        redis.call('HSET', RELAY, 'tokens', tokens_of(relay) - #jobs, 'filled', seconds(now))
    end
    redis.call('EXPIRE', RELAY, DAY)
end

local relay, away = read_relay(), read_away()
local pause, is_probe = 0, false
if redis.call('EXISTS', suspended) == 0 then
    local most
    most, pause, is_probe = allowance(relay, away)
    local used = 0
    while used < #executions and #jobs < most and not is_full do
        local ids = redis.call('LRANGE', QUEUE, 0, math.min(most - #jobs, #executions - used) - 1)
        if #ids == 0 then
            break
        end
        local failed = scores_of(FAILED, ids)
        redis.call('LPOP', QUEUE, #ids)
        claim_each(ids, failed, used)
        used = used + #ids
    end
    call_with('RPUSH', QUEUE, stuck)  -- behind all others, for the next try
    if #jobs > 0 then
        note_taken(relay, is_probe)
    end
    if redis.call('LLEN', QUEUE) == 0 then
        pause = 0
    end
end
return {seconds(now), jobs, requests, buried, canceled, faults, tostring(pause), is_probe and #jobs > 0 and 1 or 0,
    relay.state == 'open' and relay.reason or '', relay.changed or '',
    is_alone(relay, away) and away.wait ~= '0' and away.reason or '', relay.detail or away.detail or ''}
