/* SPDX-License-Identifier: MIT
 *
 * lora.c: adapters as the settings of a run ask for them.
 */
#include <math.h>
#include <string.h>

#include "kiln/settings.h"
#include "train/complete.h"

/* Without --lora nothing else may be said of adapters. */
static enum kiln_status check_none(const struct kiln_settings *s, struct kiln_err *err) {
    static const enum kiln_setting_id of_lora[] = {KILN_SETTING_lora_alpha,
                                                   KILN_SETTING_lora_targets, KILN_SETTING_adapter};
    for (size_t i = 0; i < sizeof of_lora / sizeof of_lora[0]; i++) {
        KILN_REQUIRE(s->origin[of_lora[i]] != KILN_FROM_FLAG, err, KILN_EUSAGE,
                     "--%s says how adapters are, and none are asked for: add --lora RANK (1 to "
                     "%d), or leave it out",
                     kiln_setting(of_lora[i])->flag, KILN_LORA_MOST_RANK);
    }
    return KILN_OK;
}

enum kiln_status kiln_settings_lora(const struct kiln_settings *s, struct kiln_lora *out,
                                    struct kiln_err *err) {
    *out = (struct kiln_lora){.rank = 0};
    if (s->lora == KILN_UNSET) {
        return check_none(s, err);
    }
    KILN_REQUIRE(s->model, err, KILN_EUSAGE,
                 "--lora trains adapters beside a model that is there: name it with --model (a "
                 "model file, a run or a preset)");
    KILN_REQUIRE(strcmp(s->overlap, "delayed") != 0, err, KILN_EUSAGE,
                 "--overlap delayed: with --lora no kernel is compiled again, and there is nothing "
                 "to hide; use --overlap exact or off");
    KILN_REQUIRE(strcmp(s->dw, "gpu") != 0, err, KILN_EUSAGE,
                 "--dw gpu: with --lora the weight gradients are those of adapters, too small for "
                 "the way to a GPU; use --dw cpu");
    out->rank = s->lora;
    out->alpha = isnan(s->lora_alpha) ? 2.0 * (double)s->lora : s->lora_alpha;
    KILN_TRY(kiln_lora_parse(s->lora_targets ? s->lora_targets : "q,v", &out->targets, err));
    return kiln_lora_check(out, err);
}

enum kiln_status kiln_settings_adapter(const struct kiln_settings *s, const struct kiln_lora *lora,
                                       struct kiln_err *err) {
    struct kiln_lora has;
    char targets[KILN_LORA_TEXT];
    if (!s->adapter) {
        return KILN_OK;
    }
    KILN_TRY(kiln_lora_peek(s->adapter, &has, err));
    kiln_lora_text(has.targets, targets);
    KILN_REQUIRE(has.rank == lora->rank && has.alpha == lora->alpha && has.targets == lora->targets,
                 err, KILN_EUSAGE,
                 "--adapter %s: its adapters are --lora %zu --lora-alpha %g --lora-targets %s; "
                 "give these, or begin without --adapter",
                 s->adapter, has.rank, has.alpha, targets);
    return KILN_OK;
}
