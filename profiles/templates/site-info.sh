# written by gridgate from the site's files; for scripts: . /etc/gridgate/site-info.sh
SITE_NAME={{ site.name | quoted }}
SITE_DOMAIN={{ site.domain | quoted }}
GUEST_NAME={{ guest.name | quoted }}
GUEST_ROLE={{ guest.role | quoted }}
GUEST_PROFILE={{ guest.profile | quoted }}
CE_HOSTS='{% for one in guests(role="ce") %}{{ one.fqdn }}{% if not loop.last %} {% endif %}{% endfor %}'
SE_HOSTS='{% for one in guests(role="se") %}{{ one.fqdn }}{% if not loop.last %} {% endif %}{% endfor %}'
UI_HOSTS='{% for one in guests(role="ui") %}{{ one.fqdn }}{% if not loop.last %} {% endif %}{% endfor %}'
WN_HOSTS='{% for one in guests(role="wn") %}{{ one.fqdn }}{% if not loop.last %} {% endif %}{% endfor %}'
