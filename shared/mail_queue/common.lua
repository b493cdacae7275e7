-- Stands before every script of this folder: the names of RQ's keys and ours, and what several scripts do.
-- The first nine keys and the first seven arguments are the same for all; `layout.py` fills them in.
local QUEUE, QUEUES, STARTED, FAILED, SCHEDULED, DEFERRED, CANCELED, CLAIMS, RECEIPTS =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local JOB, RESULTS, EXECUTION, EXECUTIONS = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local RECEIPT, THREAD, REQUEST = ARGV[5], ARGV[6], ARGV[7]
local OWN_KEYS = 9

-- The year 2100: where RQ's clean-up looks, our started jobs never expire. Our own claims do.
local FAR = 4102444800
local MONTH = 2592000

-- Receipts that wait for a watcher: where none may write them into Teleport's records, the oldest are let go.
local RECEIPTS_KEPT = 100000

-- All of a script happens at one time.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

-- One command for many values, so many at once as Lua's stack surely bears.
local AT_ONCE = 1000
local function call_with(command, key, values)
    for first = 1, #values, AT_ONCE do
        redis.call(command, key, unpack(values, first, math.min(first + AT_ONCE - 1, #values)))
    end
end

-- The scores of these in a sorted set, in their order; false: it is not there.
local function scores_of(key, values)
    local scores = {}
    for first = 1, #values, AT_ONCE do
        for _, score in ipairs(redis.call('ZMSCORE', key, unpack(values, first, math.min(first + AT_ONCE - 1, #values)))) do
            scores[#scores + 1] = score
        end
    end
    return scores
end

-- Jobs that no script can handle, with Redis's reason; one that has somebody else's type under one of its keys, say. They
-- are to be no other job's matter: a script that is broken off leaves the rest of its batch half done.
local faults = {}
-- What Redis refuses to everybody is no job's fault: it ends the script, which is tried again.
local REFUSALS = {'OOM ', 'READONLY ', 'MISCONF ', 'NOREPLICAS '}
local function attempt(id, action, ...)
    local is_done, answer = pcall(action, ...)
    if not is_done then
        local fault = type(answer) == 'table' and answer.err or tostring(answer)
        for _, refusal in ipairs(REFUSALS) do
            if string.find(fault, refusal, 1, true) then
                error(answer, 0)
            end
        end
        faults[#faults + 1] = id .. ': ' .. fault
    end
    return is_done, answer
end

-- A number in a job's hash. What another program has written there instead counts nothing: it is to stop no script, nor a
-- reader of what is counted on from there.
local COUNTABLE = 1e6
local function count(text)
    local number = tonumber(string.match(text or '', '^%d+$')) or 0
    return number < COUNTABLE and number or 0
end

local function seconds(value)
    return string.format('%.6f', value)
end

local function entry_of(id, execution)
    return id .. ':' .. execution
end

-- Holding a job means: the claim is on the list, and the job names it.
local function holds(id, execution)
    return redis.call('ZSCORE', CLAIMS, entry_of(id, execution)) and redis.call('HGET', JOB .. id, 'claim') == execution
end

-- Is it in a mailer's hands?
local function is_live(id, execution)
    local until_ = redis.call('ZSCORE', CLAIMS, entry_of(id, execution))
    return until_ and tonumber(until_) > now
end

local function end_execution(id, execution)
    local entry = entry_of(id, execution)
    redis.call('ZREM', STARTED, entry)
    redis.call('ZREM', CLAIMS, entry)
    redis.call('DEL', EXECUTION .. entry)
    redis.pcall('ZREM', EXECUTIONS .. id, execution)  -- where that is no list of RQ's, there is none to leave
end

-- Where it cannot be done it is as if this worker had died over the job: that comes back, and after some deaths it is a
-- dead letter.
local function attempt_or_die(id, execution, action, ...)
    if not attempt(id, action, ...) then
        redis.call('ZADD', CLAIMS, now, entry_of(id, execution))
        redis.call('ZADD', STARTED, FAR, entry_of(id, execution))
    end
end

local function leave_registries(ids)
    for _, registry in ipairs({FAILED, SCHEDULED, DEFERRED, CANCELED}) do
        call_with('ZREM', registry, ids)
    end
end

local function forget_job(id)
    redis.call('DEL', JOB .. id, RESULTS .. id, EXECUTIONS .. id)
    leave_registries({id})
end

local function delivered_before(id)
    return redis.call('HGET', RECEIPT .. id, 'outcome') == 'delivered'
end

-- A delivered receipt is final: nothing overwrites it. Any other is replaced as a whole. A new one is told to the
-- watchers, too. Receipts stay for a month, so they have no empty fields, and no 'perhaps' that is '0': readers take what
-- is not there for that.
local function write_receipt(id, outcome, perhaps, reason, detail, attempts)
    local key = RECEIPT .. id
    local before = redis.call('HGET', key, 'outcome')
    if before == 'delivered' then
        return
    end
    if before ~= outcome then
        redis.call('XADD', RECEIPTS, 'MAXLEN', '~', RECEIPTS_KEPT, '*', 'mail', id, 'outcome', outcome,
            'perhaps', perhaps)
    end
    if before then
        redis.call('DEL', key)
    end
    local receipt = {'v', '1', 'outcome', outcome, 'at', math.floor(now), 'attempts', attempts}
    local function note(name, value, nothing)
        if value ~= nothing then
            receipt[#receipt + 1], receipt[#receipt + 2] = name, value
        end
    end
    note('perhaps', perhaps, '0')
    note('reason', reason, '')
    note('detail', detail, '')
    redis.call('HSET', key, unpack(receipt))
    redis.call('EXPIRE', key, MONTH)
end

-- The receipt of a letter that was brought back says 'perhaps' while a mailer has it in hand (`claim.lua`). No more once
-- that one knows better.
local function note_in_receipt(id, perhaps)
    if redis.call('HGET', RECEIPT .. id, 'outcome') == 'dead' then
        redis.call('HSET', RECEIPT .. id, 'perhaps', perhaps)
    end
end

-- RQ's failed registry, with the result stream that RQ's own worker would leave. Tells whether the mail is dead; it is
-- not if the relay has taken it before.
local function bury(id, perhaps, reason, detail, attempts, exc_string, worker, execution, started, iso)
    if delivered_before(id) then
        forget_job(id)
        return false
    end
    redis.call('HSET', JOB .. id, 'status', 'failed', 'ended_at', iso, 'claim', '', 'deaths', '0', 'attempts', '0',
        'perhaps', perhaps)
    redis.call('HDEL', JOB .. id, 'first_tried', 'revived')
    redis.call('EXPIRE', JOB .. id, MONTH)
    redis.call('ZREM', SCHEDULED, id)
    redis.call('ZREM', DEFERRED, id)
    redis.call('ZADD', FAILED, math.floor(now) + MONTH, id)
    redis.call('XADD', RESULTS .. id, 'MAXLEN', 10, '*', 'type', '2', 'worker_name', worker, 'exc_string', exc_string,
        'execution_id', execution, 'execution_started_at', started, 'execution_ended_at', seconds(now))
    redis.call('EXPIRE', RESULTS .. id, MONTH)
    write_receipt(id, 'dead', perhaps, reason, detail, attempts)
    return true
end

-- How many mails this run has dropped because an operator has canceled them.
local canceled = 0

-- What an operator has canceled leaves its receipt alone. Tells whether it is gone: not before the mailer that has it
-- in hand has settled it.
local function drop_canceled(id)
    local job = redis.call('HMGET', JOB .. id, 'claim', 'perhaps', 'attempts')
    local holder = job[1] or ''
    if holder ~= '' and is_live(id, holder) then
        return false
    end
    end_execution(id, holder)
    local perhaps = (holder ~= '' or job[2] == '1') and '1' or '0'
    write_receipt(id, 'dropped', perhaps, 'canceled', '', count(job[3]))
    forget_job(id)
    canceled = canceled + 1
    return true
end

-- Given up by us; one that an operator has brought back is not, whoever else has failed it since.
local function is_dead(id)
    return redis.call('HGET', RECEIPT .. id, 'outcome') == 'dead' and redis.call('HGET', JOB .. id, 'revived') ~= '1'
end

-- Will nobody ever settle this head of a thread?
local function is_over(id)
    local status = redis.call('HGET', JOB .. id, 'status')
    if status == 'canceled' then
        return drop_canceled(id)
    end
    return not status or (status == 'failed' and is_dead(id))
end

local function enqueue(id, thread, iso)
    redis.call('ZREM', DEFERRED, id)
    redis.call('HSET', JOB .. id, 'status', 'queued', 'enqueued_at', iso)
    redis.call('RPUSH', QUEUE, id)
    redis.call('EXPIRE', THREAD .. thread, MONTH)
end

-- The mail is done with. If it is the head of its thread, the next one that waits comes into the queue.
local function next_of_thread(id, thread, iso)
    if thread == '' then
        return
    end
    local first, head = unpack(redis.call('LRANGE', THREAD .. thread, 0, 1))
    if first ~= id then
        return
    end
    redis.call('LPOP', THREAD .. thread)
    while head do
        if redis.call('HGET', JOB .. head, 'status') == 'deferred' then
            return enqueue(head, thread, iso)
        end
        if not is_over(head) then
            return
        end
        redis.call('LPOP', THREAD .. thread)
        head = redis.call('LINDEX', THREAD .. thread, 0)
    end
end

-- Back into the queue, behind so many others at its head, as if it had never been taken: no attempt, no death. Tells
-- whether it went there.
local function put_back(id, perhaps, iso, behind)
    local job = redis.call('HMGET', JOB .. id, 'status', 'thread', 'perhaps')
    local perhaps_now = perhaps
    perhaps = (job[3] == '1' or perhaps == '1') and '1' or '0'
    note_in_receipt(id, perhaps)  -- first, for it may fail: then the job still names its claim
    redis.call('HSET', JOB .. id, 'claim', '', 'deaths', '0', 'perhaps', perhaps)
    if perhaps_now == '1' then
        redis.call('HSET', JOB .. id, 'consent', '')  -- see `claim.lua`
    end
    if job[1] == 'canceled' then
        drop_canceled(id)
        next_of_thread(id, job[2] or '', iso)
        return false
    end
    redis.call('ZREM', FAILED, id)  -- where a stale write of RQ's may have put it
    redis.call('PERSIST', JOB .. id)
    if job[1] == 'queued' then
        return false
    end
    redis.call('HSET', JOB .. id, 'status', 'queued')
    local last = behind > 0 and redis.call('LINDEX', QUEUE, behind - 1)
    if last then
        redis.call('LINSERT', QUEUE, 'AFTER', last, id)
    else
        redis.call(behind > 0 and 'RPUSH' or 'LPUSH', QUEUE, id)
    end
    return true
end
