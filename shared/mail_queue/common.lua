-- Stands before every script of this folder: the names of RQ's keys and ours, and what several scripts do.
-- The first seven keys and the first seven arguments are the same for all; `layout.py` fills them in.
local QUEUE, QUEUES, STARTED, FAILED, SCHEDULED, DEFERRED, CLAIMS =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local JOB, RESULTS, EXECUTION, EXECUTIONS = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local RECEIPT, THREAD, REQUEST = ARGV[5], ARGV[6], ARGV[7]
local OWN_KEYS, OWN_ARGUMENTS = 7, 7

-- The year 2100: where RQ's clean-up looks, our started jobs never expire. Our own claims do.
local FAR = 4102444800
local MONTH = 2592000

local function clock()
    local time = redis.call('TIME')
    return tonumber(time[1]) + tonumber(time[2]) / 1000000
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

local function end_execution(id, execution)
    local entry = entry_of(id, execution)
    redis.call('ZREM', STARTED, entry)
    redis.call('ZREM', CLAIMS, entry)
    redis.call('DEL', EXECUTION .. entry)
    redis.call('ZREM', EXECUTIONS .. id, execution)
end

local function forget_job(id)
    redis.call('DEL', JOB .. id, RESULTS .. id, EXECUTIONS .. id)
    redis.call('ZREM', FAILED, id)
    redis.call('ZREM', SCHEDULED, id)
    redis.call('ZREM', DEFERRED, id)
end

local function delivered_before(id)
    return redis.call('HGET', RECEIPT .. id, 'outcome') == 'delivered'
end

-- A delivered receipt is final: nothing overwrites it. `extra`: pairs of field and value.
local function write_receipt(id, outcome, perhaps, extra)
    if delivered_before(id) then
        return
    end
    redis.call('HSET', RECEIPT .. id, 'v', '1', 'outcome', outcome, 'perhaps', perhaps, 'at', seconds(clock()))
    for i = 1, #extra, 2 do
        redis.call('HSET', RECEIPT .. id, extra[i], extra[i + 1])
    end
    redis.call('EXPIRE', RECEIPT .. id, MONTH)
end

-- RQ's failed registry, with the result stream that RQ's own worker would leave.
local function bury(id, perhaps, reason, detail, attempts, exc_string, worker, execution, started, iso)
    if delivered_before(id) then
        return forget_job(id)
    end
    local now = clock()
    redis.call('HSET', JOB .. id, 'status', 'failed', 'ended_at', iso, 'claim', '', 'deaths', '0', 'attempts', '0')
    redis.call('HDEL', JOB .. id, 'first_tried', 'revived')
    redis.call('EXPIRE', JOB .. id, MONTH)
    redis.call('ZREM', SCHEDULED, id)
    redis.call('ZREM', DEFERRED, id)
    redis.call('ZADD', FAILED, math.floor(now) + MONTH, id)
    redis.call('XADD', RESULTS .. id, 'MAXLEN', 10, '*', 'type', '2', 'worker_name', worker, 'exc_string', exc_string,
        'execution_id', execution, 'execution_started_at', started, 'execution_ended_at', seconds(now))
    redis.call('EXPIRE', RESULTS .. id, MONTH)
    write_receipt(id, 'dead', perhaps, {'reason', reason, 'detail', detail, 'attempts', attempts})
end

-- The mail is done with. If it is the head of its thread, the next one that waits comes into the queue.
local function next_of_thread(id, thread, iso)
    if thread == '' or redis.call('LINDEX', THREAD .. thread, 0) ~= id then
        return
    end
    redis.call('LPOP', THREAD .. thread)
    while true do
        local head = redis.call('LINDEX', THREAD .. thread, 0)
        if not head then
            return
        end
        local status = redis.call('HGET', JOB .. head, 'status')
        if status == 'deferred' then
            redis.call('ZREM', DEFERRED, head)
            redis.call('HSET', JOB .. head, 'status', 'queued', 'enqueued_at', iso)
            redis.call('RPUSH', QUEUE, head)
            redis.call('EXPIRE', THREAD .. thread, MONTH)
            return
        end
        if status and status ~= 'canceled' then
            return
        end
        if status == 'canceled' then
            write_receipt(head, 'dropped', '0', {'reason', 'canceled'})
        end
        redis.call('LPOP', THREAD .. thread)
    end
end
