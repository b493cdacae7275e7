-- Puts back what dead workers held: claims whose time is over, and started entries of ours that have no claim.
-- The job keeps its field `claim`: that is how `claim.lua` counts the death.
--
-- ARGV  8 most jobs to put back at once
-- Gives the number of jobs that were put back.
local most = tonumber(ARGV[8])
local now = clock()
local recovered = 0

local function put_back(entry)
    local id, execution = string.match(entry, '^(.*):([^:]*)$')
    if not id then
        return redis.call('ZREM', STARTED, entry)
    end
    end_execution(id, execution)
    local job = redis.call('HMGET', JOB .. id, 'status', 'claim')
    if job[1] == 'started' and job[2] == execution then
        redis.call('HSET', JOB .. id, 'status', 'queued')
        redis.call('LPUSH', QUEUE, id)
        recovered = recovered + 1
    end
end

for _, entry in ipairs(redis.call('ZRANGEBYSCORE', CLAIMS, '-inf', now, 'LIMIT', 0, most)) do
    redis.call('ZREM', CLAIMS, entry)
    put_back(entry)
end
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', STARTED, FAR, FAR, 'LIMIT', 0, most)) do
    if not redis.call('ZSCORE', CLAIMS, entry) then
        put_back(entry)
    end
end
return recovered
