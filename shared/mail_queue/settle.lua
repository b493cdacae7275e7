-- What became of claimed mails: the receipt in any case; RQ's state and the thread only where the claim still holds.
--
-- KEYS  9 the worker · 10 the worker's executions
-- ARGV  8 name of the worker · 9 time as RQ writes it
--       then for each mail: id · execution · outcome (delivered, later, dropped, dead) · reason · detail
--       · pause in seconds · perhaps ('1': the relay may have taken it) · exc_string of a dead one · started at
-- Gives the number of mails whose claim was lost.
local worker_key, worker_executions = KEYS[OWN_KEYS + 1], KEYS[OWN_KEYS + 2]
local worker, iso = ARGV[8], ARGV[9]
local now = clock()
local lost, succeeded, failed, worked = 0, 0, 0, 0

local function try_later(id, pause, perhaps, attempts, started)
    redis.call('ZREM', FAILED, id)  -- where a stale write of RQ's may have put it
    redis.call('PERSIST', JOB .. id)
    redis.call('HSET', JOB .. id, 'status', 'scheduled', 'claim', '', 'deaths', '0', 'perhaps', perhaps,
        'attempts', attempts, 'number_of_retries', attempts, 'ended_at', iso)
    redis.call('HSETNX', JOB .. id, 'first_tried', started)
    redis.call('ZADD', SCHEDULED, math.ceil(now + pause), id)
end

local function settle(id, execution, outcome, reason, detail, pause, perhaps, exc_string, started)
    local mine = holds(id, execution)
    local job = redis.call('HMGET', JOB .. id, 'perhaps', 'attempts', 'thread', 'status')
    local attempts = tonumber(job[2] or '0') + 1
    perhaps = (job[1] == '1' or perhaps == '1') and '1' or '0'
    -- First, because it needs no memory: a Redis that is full lets a script go on that has already written, so that
    -- mails leave the queue, which makes room.
    end_execution(id, execution)
    redis.call('SREM', worker_executions, entry_of(id, execution))
    if outcome == 'delivered' then
        write_receipt(id, 'delivered', perhaps, '', detail, attempts)
        if not mine and redis.call('ZSCORE', FAILED, id) then
            forget_job(id)  -- it was among the dead letters, and was delivered after all
        end
    end
    if not mine then
        lost = lost + 1
        return
    end
    worked = worked + (now - tonumber(started))
    if delivered_before(id) then
        outcome = 'delivered'
    elseif job[4] == 'canceled' then
        outcome, reason, detail = 'dropped', 'canceled', ''
    end
    if outcome == 'later' then
        failed = failed + 1
        return try_later(id, tonumber(pause), perhaps, attempts, started)
    end
    if outcome == 'dead' then
        failed = failed + 1
        bury(id, perhaps, reason, detail, attempts, exc_string, worker, execution, started, iso)
    else
        succeeded = succeeded + 1
        write_receipt(id, outcome, perhaps, reason, detail, attempts)
        forget_job(id)
    end
    next_of_thread(id, job[3] or '', iso)
end

local position = 10
while ARGV[position] do
    settle(ARGV[position], ARGV[position + 1], ARGV[position + 2], ARGV[position + 3], ARGV[position + 4],
        ARGV[position + 5], ARGV[position + 6], ARGV[position + 7], ARGV[position + 8])
    position = position + 9
end
if redis.call('EXISTS', worker_key) == 1 then
    redis.call('HINCRBY', worker_key, 'successful_job_count', succeeded)
    redis.call('HINCRBY', worker_key, 'failed_job_count', failed)
    redis.call('HINCRBYFLOAT', worker_key, 'total_working_time', string.format('%.6f', worked))
end
return lost
