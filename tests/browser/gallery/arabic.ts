/** What a page gives to have the components in Arabic, from right to left. */
import {words} from '../../../clients/js/src/widgets/words.ts'
import '../../../clients/js/src/widgets/words-more.ts'
import {snapshotOf, type Deed, type Scene} from './data.ts'
import {Stage, type Widget} from './stage.ts'

export const ARABIC = {
  locale: 'ar-EG',
  people: {
    ana: {name: 'آنا رويز'},
    jonas: {name: 'يوسف حدّاد'},
    mei: {name: 'مي طه'},
    ife: {name: 'عفاف كريم'},
    tomasz: {name: 'طارق ليث'},
    priya: {name: 'بريا رامان'},
    sam: {name: 'سامي داود'},
    noor: {name: 'نور حدّاد'},
  },
  povs: {
    mossgate: 'بنك موسغيت',
    brindle: 'بريندل للشحن',
    quillon: 'كويلون للطيران',
    pellwood: 'عيادات بيلوود',
  },
  /** Titles and texts of the deeds are the app's. */
  texts: {
    Jonas: 'يوسف',
    'Audit log export': 'تصدير سجلّ التدقيق',
    'Their DBA wants it on before Thursday. I can pair at 15:00.': 'يريدونه قبل يوم الخميس. أستطيع العمل معكِ الساعة ٣.',
    'Brindle Freight': 'بريندل للشحن',
    'Set up': 'الإعداد',
    Prove: 'الإثبات',
    reviewer: 'مراجعًا',
    'Nightly sync': 'المزامنة الليلية',
    'Rollback rehearsal': 'تجربة التراجع',
  } as Record<string, string>,
  strings: {
    heading: 'نشاط الفريق',
    you: 'أنتِ',
    now: 'الآن',
    list: 'النشاط',
    'says.connecting': '*جارٍ الاتصال*',
    'says.live': '*مباشر*',
    'says.since': ' · مكتمل منذ {time}',
    'says.catching-up': '*جارٍ اللحاق*',
    'says.progress': '*جارٍ اللحاق* · {n} من {total}',
    'says.slow': '*جارٍ اللحاق* · هذا الاتصال بطيء',
    'says.offline': '*غير متصل* منذ {time}',
    'says.paused': '*متوقف مؤقتًا* · كانت علامة التبويب نائمة',
    'says.restarting': '*الخادم يعيد التشغيل* · يعود خلال ثوانٍ',
    'says.busy': '*الخادم مشغول* منذ {time}',
    'says.renewing': '*جارٍ تجديد الجلسة*',
    'says.expired': '*انتهت الجلسة* · سجّلي الدخول للمتابعة',
    'says.signed-out': '*تم تسجيل الخروج*',
    'says.ended': '*قُطع الاتصال* من المسؤول',
    'says.page-error': '*متوقف* · في هذه الصفحة خطأ',
    'says.no-access': '*لا وصول*',
    'says.missed': {zero: '*مباشر*', one: '*مباشر* · فات واحد', two: '*مباشر* · فات اثنان', few: '*مباشر* · فاتت {n}', many: '*مباشر* · فات {n}', other: '*مباشر* · فات {n}'},
    'says.digest': '*مباشر* · منذ {time}',
    'says.nothing': '*مباشر* · لم يفت شيء',
    'foot.connecting': 'جارٍ تحميل أحدث النشاط',
    'foot.since': 'مكتمل منذ {time}',
    'foot.until': 'لديك كل شيء حتى {time}',
    'foot.retry': 'المحاولة التالية خلال {n} ث',
    'foot.nothing': 'لم يفت شيء',
    'foot.live-since': 'مباشر منذ {time}',
    'foot.up-to-date': 'محدّث',
    'foot.stopped': 'توقف في {time}',
    'foot.wiped': 'لا شيء محفوظ هنا',
    'foot.typing1-on': '{a} يكتب في *{where}*',
    'foot.typing1': '{a} يكتب',
    'do.retry': 'حاولي الآن',
    'do.resume': 'متابعة',
    'do.sign-in': 'تسجيل الدخول',
    'do.reload': 'إعادة التحميل',
    'do.load': 'تحميل',
    'do.read-all': 'تعليم الكل كمقروء',
    'do.show': 'عرض',
    'do.hide': 'إخفاء',
    'do.filter': 'تصفية',
    'do.notifications': 'الإشعارات',
    'do.menu': 'المزيد',
    'do.earlier': 'تحميل الأقدم',
    'do.follow': 'اختاري ما تتابعينه',
    'do.clear-filter': 'مسح التصفية',
    new: {zero: 'لا جديد', one: 'جديد واحد', two: 'جديدان', few: '{n} جديدة', many: '{n} جديدًا', other: '{n} جديد'},
    divider: 'قرأتِ حتى هنا',
    seen: 'رآه {n} من {total}',
    'seen.all': 'رآه الجميع ({n})',
    here: {zero: 'لا أحد هنا', one: 'واحد هنا', two: 'اثنان هنا', few: '{n} هنا', many: '{n} هنا', other: '{n} هنا'},
    'here.word': ' هنا',
    unread: {zero: 'لا جديد', one: 'واحد غير مقروء', two: 'اثنان غير مقروءين', few: '{n} غير مقروءة', many: '{n} غير مقروءًا', other: '{n} غير مقروء'},
    'empty.title': 'لم يحدث شيء هنا بعد',
    'empty.text': 'تظهر أول مهمة أو تعليق أو مرحلة لحظة حدوثها. يمكنكِ ترك هذا مفتوحًا.',
    'ended.title': 'أُنهي هذا الاتصال',
    'ended.text': 'لن تُعاد المحاولة. إن فاجأكِ هذا فاسألي من يدير هذا الخادم.',
    'signed-out.title': 'سجّلي الدخول لتري ما يحدث',
    'signed-out.text': 'ما كان في هذه الصفحة لم يعد في هذا المتصفح.',
    'no-access.title': 'لم تُشارَك معكِ',
    'no-access.text': 'اطلبي من المالك إضافتكِ. تُفتح هنا من تلقاء نفسها بعد ذلك.',
    'n.task': {one: 'مهمة واحدة', two: 'مهمتين', few: '{n} مهام', many: '{n} مهمة', other: '{n} مهمة'},
    'task.completed': 'أنجز *{who}* *{what}*',
    'task.reopened': 'أعاد *{who}* فتح *{what}*',
    'comment.added': 'علّق *{who}* على *{what}*',
    'file.added': 'أضاف *{who}* الملف *{what}*',
    'person.joined': 'انضم *{who}* بصفة {what}',
    'phase.changed': 'نقل *{who}* *{what}* من {steps}',
    'you.phase.changed': 'نقلتِ *{what}* من {steps}',
    quote: '«{text}»',
  },
}

const STRINGS: Record<string, unknown> = ARABIC.strings

/** What we call it in English, as it is called now. */
function translated(text: string): string {
  const [key] = Object.entries(words).find(([, sentence]) => sentence === text) ?? []
  return key && typeof STRINGS[key] === 'string' ? STRINGS[key] : ARABIC.texts[text] ?? text
}

function arabic(scene: Scene): Scene {
  const details = (given: Deed['details']) =>
    given && Object.fromEntries(Object.entries(given).map(([key, value]) => [key, translated(String(value))]))
  return {...scene, deeds: scene.deeds?.map(deed => ({...deed, details: details(deed.details)}))}
}

/** A stage whose apps, people and buttons speak Arabic; what is done on it is said in English. */
export class ArabicStage extends Stage {
  constructor(widget: Widget, scene: Scene) {
    super(widget, arabic(scene))
  }

  override async become(scene: Scene): Promise<void> {
    this.feed.show(snapshotOf(arabic(scene)))
    await this.settle()
  }

  override async button(name: string): Promise<HTMLElement> {
    return await super.button(translated(name))
  }
}
