-- Prolongs claims that still hold.
--
-- ARGV  8 seconds that a claim lives, from 9 on, for each job: id · execution
-- Gives the executions whose claim was lost.
local life = tonumber(ARGV[8])
local lost = {}
for position = 9, #ARGV, 2 do
    local id, execution = ARGV[position], ARGV[position + 1]
    if holds(id, execution) then
        local entry = entry_of(id, execution)
        redis.call('EXPIRE', EXECUTIONS .. id, life * 2)  -- first: see `settle.lua`
        redis.call('ZADD', CLAIMS, 'XX', now + life, entry)
        if redis.call('EXPIRE', EXECUTION .. entry, life * 2) == 1 then
            redis.call('HSET', EXECUTION .. entry, 'last_heartbeat', seconds(now))
        end
    else
        lost[#lost + 1] = execution
    end
end
return lost
