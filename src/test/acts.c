/* What each verb of a test script does; see acts.h. */
#include "test/acts.h"

#include "base/error.h"

gint64 act_within(const struct command *command, unsigned seconds)
{
    const struct token *token = command_value(command, "within", 0);
    return token ? token->number : (gint64)seconds * G_USEC_PER_SEC;
}

const char *act_text(const struct command *command, const char *name)
{
    const struct token *token = command_value(command, name, 0);
    return token ? token->text : NULL;
}

static bool do_nothing(struct run *run, struct target *t, const struct command *command,
                       GError **error)
{
    (void)run, (void)t, (void)command, (void)error;
    return true;
}

static const struct {
    enum verb_id id;
    act_function *act;
} actions[] = {
    { VERB_SKIP, act_skip },
    { VERB_STEP, do_nothing },
    { VERB_BOOT, act_boot },
    { VERB_REBOOT, act_reboot },
    { VERB_POWEROFF, act_poweroff },
    { VERB_OFF, act_off },
    { VERB_POWER_CUT, act_power_cut },
    { VERB_RESET, act_reset },
    { VERB_PAUSE, act_pause },
    { VERB_RESUME, act_resume },
    { VERB_MARK, do_nothing },
    { VERB_RESTORE, act_restore },
    { VERB_FROM, act_restore },
    { VERB_SEE, act_see },
    { VERB_SEE_IMAGE, act_see_image },
    { VERB_NOT_SEE, act_not_see },
    { VERB_LOG, act_log },
    { VERB_NOT_LOG, act_not_log },
    { VERB_STILL, act_still },
    { VERB_CHANGE, act_change },
    { VERB_EVENT, act_event },
    { VERB_PORT, act_port },
    { VERB_CRASH, act_crash },
    { VERB_TYPE, act_type },
    { VERB_KEY, act_key },
    { VERB_CLICK, act_click },
    { VERB_MOVE, act_move },
    { VERB_SCROLL, act_scroll },
    { VERB_SET, act_set },
    { VERB_RUN, act_run },
    { VERB_GUEST, act_guest },
    { VERB_COPY, act_copy },
    { VERB_HOST, act_host },
    { VERB_NET, act_net },
    { VERB_DISK, act_disk },
    { VERB_EJECT, act_eject },
    { VERB_SCREENSHOT, act_screenshot },
};

bool verb_do(struct run *run, const struct command *command, GError **error)
{
    for (size_t i = 0; i < G_N_ELEMENTS(actions); i++)
        if (actions[i].id == command->verb->id)
            return actions[i].act(run, run_target(run, command), command, error);
    return hv_fail(error, HV_FAILED, "nothing is known of how this is done");
}
