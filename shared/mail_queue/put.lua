-- The router's commit: what it has learned of a request, the mails that follow, and the event's acknowledgement.
-- Nothing is written if the memory's revision is no longer the one that was read: then read and route again.
--
-- KEYS  10 the request's memory · 11 the set of open requests · 12 the stream of events
-- ARGV  8 group · 9 entry of the event · 10 revision that was read · 11 revision that this commit makes
--       12 lifetime of the memory, in seconds · 13 open: 'add', 'remove' or '' · 14 time as RQ writes it
--       15 description of the jobs · 16 timeout of the jobs
--       17 number of memory fields, then that many pairs of field and value; 0 fields: nothing new was learned
--       then for each mail: id · thread · data
-- Gives {1, jobs created, jobs that existed} or {0}.
local memory, open, events = KEYS[OWN_KEYS + 1], KEYS[OWN_KEYS + 2], KEYS[OWN_KEYS + 3]
local group, event, revision, new_revision, lifetime = ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local opening, iso, description, timeout = ARGV[13], ARGV[14], ARGV[15], ARGV[16]

if (redis.call('HGET', memory, 'revision') or '') ~= revision then
    return {0}
end

local position = 18
for _ = 1, tonumber(ARGV[17]) do
    redis.call('HSET', memory, ARGV[position], ARGV[position + 1])
    position = position + 2
end
if position > 18 then
    redis.call('HSET', memory, 'revision', new_revision)
    redis.call('EXPIRE', memory, lifetime)
    local id = string.sub(memory, #REQUEST + 1)
    if opening == 'add' then
        redis.call('ZADD', open, 'NX', seconds(now), id)
    elseif opening == 'remove' then
        redis.call('ZREM', open, id)
    end
end

local created, existed = 0, 0
while ARGV[position] do
    local id, thread, data = ARGV[position], ARGV[position + 1], ARGV[position + 2]
    position = position + 3
    if redis.call('EXISTS', JOB .. id, RECEIPT .. id) > 0 then
        existed = existed + 1
    else
        created = created + 1
        local waits = redis.call('RPUSH', THREAD .. thread, id) > 1
        redis.call('EXPIRE', THREAD .. thread, MONTH)
        -- RQ writes fields that are empty, too. It reads the same without them, and they would cost 0.4 KB a mail.
        redis.call('HSET', JOB .. id, 'created_at', iso, 'enqueued_at', iso, 'origin', 'mail', 'timeout', timeout,
            'result_ttl', '0', 'failure_ttl', MONTH, 'description', description, 'data', data,
            'thread', thread, 'request', string.sub(memory, #REQUEST + 1),
            'status', waits and 'deferred' or 'queued')
        if waits then
            -- A microsecond apart, so that their order is known although the thread should be lost.
            redis.call('ZADD', DEFERRED, seconds(now + created / 1000000), id)
        else
            redis.call('RPUSH', QUEUE, id)
        end
    end
end
if created > 0 then
    redis.call('SADD', QUEUES, QUEUE)
end
redis.call('XACK', events, group, event)
return {1, created, existed}
