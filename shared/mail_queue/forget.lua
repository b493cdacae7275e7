-- Dead letters that nobody will want any more. Their receipts stay: what is dead is not made again.
--
-- ARGV  from 8 on: ids of mails
-- Gives the number of those that were dead letters.
local forgotten = 0
for position = 8, #ARGV do
    local id = ARGV[position]
    -- A mail that another RQ worker has failed is none of them: nobody has given it up. What is no mail may go.
    local is_mail = redis.call('HEXISTS', JOB .. id, 'thread') == 1
    if redis.call('ZSCORE', FAILED, id) and (is_dead(id) or not is_mail) then
        forget_job(id)
        forgotten = forgotten + 1
    end
end
return forgotten
